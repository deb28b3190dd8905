"""What all tests share: a loud line at the end if tests on real clips were skipped."""

import pytest
import real_clips


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    result = yield  # the list of all skipped tests first
    line = real_clips.summary(terminalreporter.stats.get("skipped", []))
    if line:
        terminalreporter.write_sep("=", line, red=True, bold=True)
    return result
