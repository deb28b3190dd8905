"""Resumable preparation of a corpus as shards: decoding, tracking, cropping, speech features.

Files of the dataset's folder:

* `{train,validation,test}/shard-NNNNNN.tar`: samples, see `avface.data.samples`; with each shard a
  `shard-NNNNNN.json` with its items and the frames of their takes;
* `index.json`, written last: the options, and the size, SHA-256, items and frames of each shard;
* `skipped.jsonl`: skipped items with the reason, one per line;
* `.work`, until the end: the results of single items, each in a file of its own.

Files are written atomically, and their bytes don't depend on time, number of processes, or interruptions.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from avface.data.config import PrepareConfig
from avface.data.item_samples import SpeechFeatures, SpeechReader, Tracker
from avface.data.items import SPLITS, Item, Layout, Split, find_items, split_of
from avface.data.samples import Sample
from avface.data.shards import (
    INDEX,
    VERSION,
    file_hash,
    read_json,
    read_samples,
    unwritable,
    write_json,
    write_samples,
)
from avface.data.workers import ItemTask, run_tasks
from avface.errors import AvfaceError
from avface.files import replacing

SKIPPED = "skipped.jsonl"
"""The log of skipped items."""
WORK = ".work"
"""The folder of intermediate results."""


@dataclass(frozen=True)
class Skipped:
    """A skipped item."""

    id: str
    """Id of the item."""
    reason: str
    """Reason for skipping it."""


@dataclass(frozen=True)
class Report:
    """Result of a preparation."""

    folder: Path
    """Folder of the dataset."""
    items: int
    """Number of items of the corpus."""
    frames: dict[Split, int]
    """Number of frames in each split."""
    shards: dict[Split, int]
    """Number of shards in each split."""
    skipped: tuple[Skipped, ...]
    """Skipped items, as in `skipped.jsonl`."""


def prepare(
    source: str | Path,
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    layout: Layout = "auto",
    workers: int | None = None,
    track: Tracker | None = None,
    speech: SpeechReader | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> Report:
    """Prepare a corpus as shards for `avface.data.Windows`.

    Unusable items (damaged, without a face, too short) are logged and skipped. An interrupted run is resumed by a call
    with the same arguments; of a finished one, only shards that are missing or have another size are rebuilt.

    Args:
        source: Folder of the corpus, see `find_items`.
        out: Folder of the dataset: new, empty, or from an interrupted run.
        layout: Layout of the corpus on disk.
        workers: Number of processes; None for one per processor. A single one runs in this process, where a file that
            crashes the decoder ends the run.
        track: In place of `avface.tracking.track`; must be picklable for more than one worker.
        speech: In place of `avface.speech.speech_features` of the config's kind; must be picklable as well.
        on_item: Called with the numbers of finished and of all items.

    Raises:
        AvfaceError: when the source is missing or empty, `out` holds other files or can't be written, or no item could
            be used.
    """
    config = PrepareConfig() if config is None else config
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise AvfaceError(f"workers={workers} must be at least 1")
    items = find_items(source, layout)
    # in an order independent of identities, so that a shard holds many people
    items.sort(key=lambda item: sha256(item.id.encode()).digest())
    if config.speech is not None:  # fail now, not at every item, if weights are missing
        (speech or SpeechFeatures(config.speech))(np.zeros(1600, np.float32), np.zeros(1))
    preparation = _Preparation(Path(out), Path(source), items, config)
    preparation.start()
    todo = preparation.todo()
    done = len(items) - len(todo)
    task = ItemTask(preparation.work, Path(source), config, track, speech)
    for _ in run_tasks(task, [(number, items[number]) for number in todo], workers):
        done += 1
        if on_item is not None:
            on_item(done, len(items))
        preparation.collect()
    return preparation.finish()


class _Preparation:
    """State of the dataset's folder during preparation: finished items, and shards of them in a fixed order."""

    def __init__(self, out: Path, source: Path, items: list[Item], config: PrepareConfig):
        self.out, self.items, self.config = out, items, config
        self.work = out / WORK
        self.splits = [split_of(item, config.validation, config.test) for item in items]
        listing = sha256()
        for item, split in zip(items, self.splits, strict=True):
            files = [
                path for path in (item.video, item.sound, item.truth) if path is not None and path.is_file()
            ]
            sizes = [path.stat().st_size for path in files]
            listing.update(f"{item.id}\t{item.identity}\t{split}\t{sizes}\n".encode())
        self.plan = {
            "version": VERSION,
            "config": asdict(config),
            "items": len(items),
            "source": listing.hexdigest(),
        }
        self.groups: dict[Split, list[int]] = {split: [] for split in SPLITS}
        self.sizes = dict.fromkeys(SPLITS, 0)
        self.entries: dict[Split, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self.rebuilt: dict[tuple[Split, int], list[int]] = {}
        self.next = 0
        self.in_shards: set[str] = set()
        self.skipped: dict[str, str] = {}

    def start(self) -> None:
        """Make the folders, or read the state of an earlier run."""
        index = self.out / INDEX
        try:
            found = next((path for path in (index, self.work / "plan.json") if path.is_file()), None)
            if found is not None:
                self._check_plan(read_json(found), found)
            elif self.out.is_dir() and any(path.name not in (WORK, SKIPPED) for path in self.out.iterdir()):
                raise AvfaceError(f"{self.out}: isn't empty and holds no dataset; give a new folder")
            self.work.mkdir(parents=True, exist_ok=True)
            write_json(self.work / "plan.json", self.plan)
            for split in SPLITS:
                (self.out / split).mkdir(exist_ok=True)
            # partial files of a killed run
            for pattern in (f"{WORK}/.*", "*/.shard-*", f".{INDEX}.*", f".{SKIPPED}.*"):
                for stray in self.out.glob(pattern):
                    stray.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.out, error) from error
        numbers = {item.id: number for number, item in enumerate(self.items)}
        for split in SPLITS:
            while (listing := self._shard(split, len(self.entries[split])).with_suffix(".json")).is_file():
                entry = read_json(listing)
                shard = listing.with_suffix(".tar")
                if not shard.is_file() or shard.stat().st_size != entry["bytes"]:
                    self.rebuilt[split, len(self.entries[split])] = [
                        numbers[one["id"]] for one in entry["items"]
                    ]
                self.entries[split].append(entry)

    def _check_plan(self, plan: dict[str, Any], path: Path) -> None:
        then, now = plan.get("config", {}), self.plan["config"]
        assert isinstance(now, dict)
        changed = [
            f"{key} was {then.get(key)}, now {value}" for key, value in now.items() if then.get(key) != value
        ]
        if plan.get("version") != VERSION:
            changed = [f"version was {plan.get('version')}, now {VERSION}"]
        if not changed and any(plan.get(key) != self.plan[key] for key in ("items", "source")):
            changed = [
                f"the source has changed, it had {plan.get('items')} items and has {self.plan['items']}"
            ]
        if changed:
            raise AvfaceError(
                f"{path.parent}: was started with other options or data ({'; '.join(changed)}); give a new folder"
            )

    def todo(self) -> list[int]:
        """Numbers of the items without a result, those of lost shards first, then in order."""
        listed = [one for entries in self.entries.values() for entry in entries for one in entry["items"]]
        self.in_shards = {one["id"] for one in listed}
        self.skipped = self._skipped_before()
        settled = self.in_shards | self.skipped.keys()
        lost = [number for numbers in self.rebuilt.values() for number in numbers]
        rest = [number for number, item in enumerate(self.items) if item.id not in settled]
        return [number for number in (*lost, *rest) if not self._outcome_path(number).is_file()]

    def _skipped_before(self) -> dict[str, str]:
        """Items skipped by a finished run."""
        if not (self.out / INDEX).is_file() or not (self.out / SKIPPED).is_file():
            return {}
        lines = (self.out / SKIPPED).read_text(encoding="utf-8").splitlines()
        return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}

    def collect(self) -> None:
        """Write the shards whose items are all finished."""
        for (split, number), members in list(self.rebuilt.items()):
            if all(self._outcome_path(member).is_file() for member in members):
                self._write_shard(split, number, members)
                del self.rebuilt[split, number]
        while self.next < len(self.items):
            item, split = self.items[self.next], self.splits[self.next]
            if item.id not in self.in_shards and item.id not in self.skipped:
                if not self._outcome_path(self.next).is_file():
                    return
                outcome = read_json(self._outcome_path(self.next))
                if "skipped" in outcome:
                    self.skipped[item.id] = outcome["skipped"]
                else:
                    if (
                        self.groups[split]
                        and self.sizes[split] + outcome["bytes"] > self.config.shard_megabytes * 1e6
                    ):
                        self._close(split)
                    self.groups[split].append(self.next)
                    self.sizes[split] += outcome["bytes"]
            self.next += 1

    def finish(self) -> Report:
        """Write the last shards and the index, and clean up."""
        self.collect()
        for split in SPLITS:
            if self.groups[split]:
                self._close(split)
        skipped = tuple(
            Skipped(item.id, self.skipped[item.id]) for item in self.items if item.id in self.skipped
        )
        skipped = tuple(sorted(skipped, key=lambda one: one.id))
        with replacing(self.out / SKIPPED, unwritable) as temporary:
            lines = (json.dumps(asdict(one)) + "\n" for one in skipped)
            temporary.write_text("".join(lines), encoding="utf-8")
        if not any(self.entries.values()):
            shutil.rmtree(self.work)
            for split in SPLITS:
                (self.out / split).rmdir()
            raise AvfaceError(
                f"{self.out}: none of {len(self.items)} items could be used; see {SKIPPED} there for the "
                f"reasons, the first: {skipped[0].reason}"
            )
        shards = {
            split: [
                {key: entry[key] for key in ("bytes", "frames", "samples", "sha256", "shard")}
                | {"items": len(entry["items"])}
                for entry in entries
            ]
            for split, entries in self.entries.items()
        }
        write_json(self.out / INDEX, self.plan | {"skipped": len(skipped), "shards": shards})
        shutil.rmtree(self.work)
        return Report(
            folder=self.out,
            items=len(self.items),
            frames={
                split: sum(entry["frames"] for entry in entries) for split, entries in self.entries.items()
            },
            shards={split: len(entries) for split, entries in self.entries.items()},
            skipped=skipped,
        )

    def _close(self, split: Split) -> None:
        """Write the current shard of a split."""
        self._write_shard(split, len(self.entries[split]), self.groups[split])
        self.groups[split], self.sizes[split] = [], 0

    def _write_shard(self, split: Split, number: int, members: list[int]) -> None:
        """Merge the items' results in one tar file, write its listing, and remove the results."""
        path = self._shard(split, number)
        count = 0

        def samples() -> Iterator[Sample]:
            nonlocal count
            for member in members:
                for sample in read_samples(self.work / f"{member:08d}.tar"):
                    count += 1
                    yield {name: data for name, data in sample.items() if name == "__key__" or name[0] != "_"}

        write_samples(path, samples())
        outcomes = [read_json(self._outcome_path(member)) for member in members]
        entry = {
            "shard": f"{split}/{path.name}",
            "bytes": path.stat().st_size,
            "sha256": file_hash(path),
            "samples": count,
            "frames": sum(sum(outcome["frames"]) for outcome in outcomes),
            "items": [
                {
                    "id": self.items[member].id,
                    "identity": self.items[member].identity,
                    "frames": outcome["frames"],
                }
                for member, outcome in zip(members, outcomes, strict=True)
            ],
        }
        write_json(path.with_suffix(".json"), entry)  # from here on the shard is valid
        if number < len(self.entries[split]):
            self.entries[split][number] = entry
        else:
            self.entries[split].append(entry)
        for member in members:
            self._outcome_path(member).unlink(missing_ok=True)
            (self.work / f"{member:08d}.tar").unlink(missing_ok=True)

    def _shard(self, split: Split, number: int) -> Path:
        return self.out / split / f"shard-{number:06d}.tar"

    def _outcome_path(self, number: int) -> Path:
        return self.work / f"{number:08d}.json"
