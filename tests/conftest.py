"""What all tests share: seeded random draws, and a loud line at the end if tests on real clips were skipped."""

import random
import sys
import zlib

import numpy as np
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
    line = real_clips.summary(terminalreporter.stats.get("skipped", []))
    if line:
        terminalreporter.write_sep("=", line, red=True, bold=True)
    return result
