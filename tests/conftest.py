"""What a test has to tell besides passing (its random seeds, what it counted) is shown in the end, whichever process
it ran in: `record_property("told", "seeds 1 to 9")`."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    told = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == "told" and report.when == "call"
    ]
    if told:
        terminalreporter.section("told by the tests")
        for line in told:
            terminalreporter.write_line(line)
