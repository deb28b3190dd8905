"""State of the process: thread counts of numerical libraries, file descriptor 2, forks."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from avface.solve.linear.banded import solve_block_pentadiagonal
from avface.threads import held_stderr, one_thread


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def in_a_thread(call):
    """What a call returns in a new thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


class Elsewhere:
    """A block of a context manager in another thread, which is entered and left when the test says so."""

    def __init__(self, manager, inside=lambda: None, after=lambda: None):
        self._entered, self._leave = threading.Event(), threading.Event()
        self.inside = self.after = None

        def hold():
            with manager:
                self.inside = inside()
                self._entered.set()
                self._leave.wait(30)
            self.after = after()

        self._thread = threading.Thread(target=hold)
        self._thread.start()
        assert self._entered.wait(30)

    def leave(self):
        self._leave.set()
        self._thread.join(30)


@pytest.fixture
def three_threads():
    """Thread counts that differ from one whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_and_blas_use_one_thread_and_are_restored():
    torch_before, blas_before = torch.get_num_threads(), blas_threads()
    assert blas_before, "NumPy has one, and SciPy, by which windows are solved"
    blocks, none, right = 2 * torch.eye(3).expand(1, 4, 3, 3), torch.zeros(1, 3, 3), torch.ones(1, 4, 3)

    with pytest.raises(ZeroDivisionError), one_thread():
        torch.testing.assert_close(solve_block_pentadiagonal(blocks, none, none[:, 1:], right), right / 2)
        assert torch.get_num_threads() == 1 and blas_threads() == {1}
        raise ZeroDivisionError

    assert torch.get_num_threads() == torch_before and blas_threads() == blas_before


def test_blocks_that_overlap_in_two_threads_restore_the_counts_of_both(three_threads):
    blas_before = blas_threads()
    # the first one leaves first: each would have saved and restored the other's count of one
    first = Elsewhere(one_thread(), inside=torch.get_num_threads, after=torch.get_num_threads)
    with one_thread():
        first.leave()
        assert (first.inside, first.after) == (1, 3)
        assert torch.get_num_threads() == 1 and blas_threads() == {1}
        assert in_a_thread(torch.get_num_threads) == 1, "the solver's workers start here"

    assert torch.get_num_threads() == 3 == in_a_thread(torch.get_num_threads)
    assert blas_threads() == blas_before


def test_a_thread_that_first_computed_within_anothers_block_gets_the_count_of_the_process(three_threads):
    started, go_on = threading.Event(), threading.Event()
    counts = []

    def compute():
        counts.append(torch.get_num_threads())
        started.set()
        go_on.wait(30)
        with one_thread():
            pass
        counts.append(torch.get_num_threads())

    with one_thread():
        thread = threading.Thread(target=compute)
        thread.start()
        assert started.wait(30)
    go_on.set()
    thread.join(30)

    assert counts == [1, 3]
    assert in_a_thread(torch.get_num_threads) == 3


def test_descriptor_2_is_the_same_after_blocks_that_overlap_in_two_threads(capfd):
    before = os.fstat(2)
    first = Elsewhere(held_stderr(lambda line: line.startswith(b"noise")))
    with held_stderr(lambda line: line.startswith(b"noise")):
        os.write(2, b"noise of a library\nan error of it\n")
        first.leave()
        assert os.fstat(2).st_ino != before.st_ino, "the second block still holds the lines back"
        os.write(2, b"noise again\n")

    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (before.st_dev, before.st_ino)
    assert capfd.readouterr().err == "an error of it\n"


def test_stderr_is_held_back_where_there_is_no_folder_for_temporary_files(capfd, monkeypatch):
    def missing(*args, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", missing)
    with held_stderr(lambda line: True):
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ("" if hasattr(os, "memfd_create") else "noise\n")
    monkeypatch.delattr("os.memfd_create", raising=False)
    with held_stderr(lambda line: True):
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == "noise\n", "shown rather than failed"


FORKING = """
import multiprocessing
from avface import reconstruct
from avface.errors import AvfaceError

def child(_):
    try:
        reconstruct("none.mp4")
    except AvfaceError as error:
        return str(error)

def forked():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.map_async(child, [0]).get(60)[0]

print(forked())  # the parent hasn't computed yet
print(child(0))
print(forked())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_after_use_is_refused_in_a_sentence_that_names_spawn():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=120)
    first, own, second = done.stdout.splitlines()
    assert first == own == "none.mp4: no such file"
    assert "was forked from a process that had used avface" in second and "get_context('spawn')" in second
