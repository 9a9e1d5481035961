"""Catalogues that tests run on. `THREE`: the first three rules by themselves, with the night as their only gate."""

from pathlib import Path

THREE = Path(__file__).parent / "three"
