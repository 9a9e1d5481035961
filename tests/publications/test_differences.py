"""What differs between two files of settings is told by the settings' names."""

from __future__ import annotations

from typing import Any

import pytest

from app.publications.differences import differences


@pytest.mark.parametrize(("before", "after", "said"), [
    ({"a": 1, "b": [1]}, {"b": [1], "a": 1}, []),
    ({"quiet": {"from": "21:00", "until": "09:00"}}, {"quiet": {"from": "22:00", "until": "09:00"}},
     ["quiet.from 21:00 -> 22:00"]),
    ({"caps": [{"limit": 2}, {"limit": 5}]}, {"caps": [{"limit": 3}, {"limit": 5}]}, ["caps[0].limit 2 -> 3"]),
    ({"caps": [{"limit": 2}]}, {"caps": []}, ["caps [{limit: 2}] -> []"]),
    ({"a": True}, {"b": False}, ["a true -> not set", "b not set -> false"]),
    ({"a": {"x": 1}}, {"a": None}, ["a {x: 1} -> empty"]),
    ({"locale": ""}, {"locale": "en"}, ["locale empty -> en"]),
    ({"a": None, "b": True, "c": "1"}, {"a": "", "b": "true", "c": 1}, ["a changed", "b changed", "c changed"]),
    ({"about": "w" * 60}, {"about": "v" * 60}, ["about changed"]),
])  # fmt: skip
def test_each_setting_that_is_another_one_is_named(before: Any, after: Any, said: list[str]) -> None:
    assert list(differences(before, after)) == said
