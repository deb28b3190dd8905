"""What all tests share: seeded random draws, and loud lines at the end if tests on real clips or in
other programs were skipped."""

import random
import sys
import zlib

import numpy as np
import programs
import pytest
import real_clips


def seed_everything(number):
    """Seed every global generator, so that draws without a generator of their own are the same in every run."""
    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    seed_everything(zlib.crc32(fixturedef.argname.encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    seed_everything(0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    result = yield  # the list of all skipped tests first
    skipped = terminalreporter.stats.get("skipped", [])
    for line in filter(None, (real_clips.summary(skipped), programs.summary(skipped))):
        terminalreporter.write_sep("=", line, red=True, bold=True)
    return result
