"""Parallel processing of items, robust against crashes of worker processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avface.data.config import PrepareConfig
from avface.data.item_samples import SpeechReader, Tracker, item_samples
from avface.data.items import Item
from avface.data.samples import Sample
from avface.data.shards import is_storage_error, write_json, write_samples
from avface.errors import AvfaceError
from avface.threads import one_thread


@dataclass(frozen=True)
class ItemTask:
    """Converts one item to its two files in the work folder; runs in any process."""

    work: Path
    source: Path
    config: PrepareConfig
    track: Tracker | None
    speech: SpeechReader | None

    def __call__(self, number: int, item: Item) -> None:
        """Write NNNNNNNN.tar with the item's samples, if any, and then NNNNNNNN.json with the outcome."""
        outcome: dict[str, Any] = {"frames": [], "bytes": 0}
        try:
            samples = item_samples(item, self.config, self.track, self.speech)
            takes: dict[int, int] = {}
            path = self.work / f"{number:08d}.tar"
            write_samples(path, _noted(samples, item, takes))
            outcome = {"frames": [takes[take] for take in sorted(takes)], "bytes": path.stat().st_size}
        except AvfaceError as error:
            if is_storage_error(error):
                raise
            outcome["skipped"] = str(error).replace(f"{self.source}{os.sep}", "")
        except (ImportError, MemoryError):
            raise  # the next item would fail as well
        except Exception as error:  # a defect in the code must not stop the other items
            outcome["skipped"] = f"unexpected {type(error).__name__}: {error}"
        write_json(self.work / f"{number:08d}.json", outcome)

    def give_up(self, number: int) -> None:
        """Write the outcome of an item that crashed its process."""
        outcome = {"frames": [], "bytes": 0, "skipped": "the process that read it crashed"}
        write_json(self.work / f"{number:08d}.json", outcome)


def _noted(samples: Iterator[Sample], item: Item, takes: dict[int, int]) -> Iterator[Sample]:
    """Yield samples and record the number of frames of each take."""
    try:
        for sample in samples:
            info = json.loads(sample["json"])
            takes[info["take"]] = info["total"]
            yield sample
    except OSError as error:  # of the item, not of the file that the samples go to
        raise AvfaceError(f"{item.video}: cannot be read ({error.strerror or error})") from None


def run_tasks(task: ItemTask, todo: list[tuple[int, Item]], workers: int) -> Iterator[int]:
    """Run the task on numbered items, in any order, and yield the number of each finished one.

    A single worker runs in this process. With several, a crash of one costs only its current item, for which `give_up`
    is called.
    """
    if workers == 1 or not todo:
        with one_thread():
            for number, item in todo:
                task(number, item)
                yield number
        return
    waiting = deque(todo)
    suspects: list[tuple[int, Item]] = []
    running: dict[Future[None], tuple[int, Item]] = {}
    while waiting:
        with _pool(min(workers, len(waiting))) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(task, *waiting[0])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        yield running.pop(future)[0]
            except BrokenProcessPool:
                suspects += running.values()
                running.clear()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for number, item in suspects:  # one of the items in progress has crashed its process: find out which
        with _pool(1) as pool:
            try:
                pool.submit(task, number, item).result()
            except BrokenProcessPool:
                task.give_up(number)
        yield number


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawned, because threads and MediaPipe's graphs don't survive a fork
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    """Set one thread per process, and end the process with its parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
