"""What a test has to tell besides passing (its random seeds, what it counted) is shown in the end, whichever process
it ran in: `record_property("told", "seeds 1 to 9")`."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine is says nothing about what is tried. Under CI=true Hypothesis itself has a profile: it stays.
settings.register_profile("any machine", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """A shell that starts the tests in its background has them ignore Ctrl-C, and all that they start as well: some of
    that is to hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
