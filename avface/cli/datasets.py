"""The verb `data`: prepares datasets for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from avface.cli.arguments import PRINT_ALL, Messages, Outcome
from avface.cli.terminal import Bars

PRINTED_SKIPS = 5
"""Largest number of skipped items that are printed; skipped.jsonl has all."""


@dataclass(frozen=True)
class Data:
    """Turn a folder of videos into shards of crops, landmarks, masks, sound and speech features.

    Reads VoxCeleb2, Multiface, the output of `synthesize`, and any folder of videos. Videos that can't be used are
    logged in OUT/skipped.jsonl. An interrupted run resumes where it stopped.
    """

    what: Annotated[Positional[Literal["prepare"]], arg(metavar="prepare", help_behavior_hint="")]
    """The action."""
    source: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """The corpus."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the shards: new, or from an interrupted run."""
    layout: Literal["auto", "voxceleb2", "multiface", "synthetic", "videos"] = "auto"
    """Folder structure of the corpus."""
    size: int = 224
    """Width and height of the crops in pixels."""
    speech: Literal["moonshine", "own", "wav2vec2", "mel", "none"] = "moonshine"
    """Kind of speech features that is stored."""
    validation: float = 0.05
    """Share of the people in the validation split."""
    test: float = 0.05
    """Share of the people in the test split."""
    workers: int | None = None
    """Processes; by default one per core."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Prepare the items that aren't prepared yet."""
        from avface.data import PrepareConfig, prepare

        config = PrepareConfig(
            size=self.size,
            speech=None if self.speech == "none" else self.speech,
            validation=self.validation,
            test=self.test,
        )
        report = prepare(
            self.source,
            self.out,
            config,
            layout=self.layout,
            workers=self.workers,
            on_item=lambda done, total: bars("preparing", done, total),
        )
        lines = [f"{report.items - len(report.skipped)} of {report.items} items in {report.folder}"]
        lines += [
            f"{split}: {report.frames[split]} frames in {report.shards[split]} shards"
            for split in report.frames
        ]
        lines += [f"skipped {skipped.id}: {skipped.reason}" for skipped in report.skipped[:PRINTED_SKIPS]]
        if len(report.skipped) > PRINTED_SKIPS:
            lines.append(
                f"... and {len(report.skipped) - PRINTED_SKIPS} more, see {report.folder / 'skipped.jsonl'}"
            )
        facts = {
            "folder": str(report.folder),
            "items": report.items,
            "frames": dict(report.frames),
            "shards": dict(report.shards),
            "skipped": [{"id": skipped.id, "reason": skipped.reason} for skipped in report.skipped],
        }
        return Outcome("\n".join(lines), facts)
