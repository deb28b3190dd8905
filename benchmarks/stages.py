"""Cost of the optional stages: whole commands with and without them, in alternation."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro
from processes import Process, reconstruct_process
from samples import as_json, check_positive, spread
from video_files import find_clip

from avface.evaluation.machine import describe_machine

PLAIN = "coarse"


@dataclass(frozen=True)
class Stages:
    """Measure the cost of stages in `avface reconstruct`."""

    video: Path | None = None
    """The video; skarsgard.mp4 in the folder AVFACE_CLIPS if none is given."""
    stages: tuple[str, ...] = ("coarse,lips",)
    """Values of `--stages` that are compared with coarse."""
    repeats: int = 5
    """Repetitions of the whole measurement."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "repeats")


def main(options: Stages) -> None:
    """Measure and print."""
    video = find_clip(options.video)
    machine = describe_machine()
    asked = (PLAIN, *options.stages)
    runs: list[dict[str, Process]] = []
    with tempfile.TemporaryDirectory() as folder:
        reconstruct_process(video, Path(folder) / "warm")  # files are in the system's caches from here on
        for _ in range(options.repeats):
            runs.append(
                {stages: reconstruct_process(video, Path(folder) / "head", stages) for stages in asked}
            )
    rows = {
        stages: {
            "seconds": [run[stages].seconds for run in runs],
            "cpu_seconds": [run[stages].cpu_seconds for run in runs],
            "seconds_over_coarse": [run[stages].seconds / run[PLAIN].seconds for run in runs],
            "cpu_over_coarse": [run[stages].cpu_seconds / run[PLAIN].cpu_seconds for run in runs],
        }
        for stages in asked
    }
    if options.json:
        content = {
            stages: {name: as_json(values) for name, values in row.items()} for stages, row in rows.items()
        }
        print(
            json.dumps(
                {"video": video.name, "repeats": options.repeats, "stages": content, "machine": machine}
            )
        )
        return
    print(f"avface reconstruct {video.name} --stages ...; median of {options.repeats} (min-max)")
    print(f"{'':24}{'seconds':>20}{'CPU seconds':>20}{'seconds / coarse':>19}{'CPU / coarse':>15}")
    for stages, row in rows.items():
        ratios = [f"{median(row[name]):.3f}" for name in ("seconds_over_coarse", "cpu_over_coarse")]
        print(
            f"{stages:24}{spread(row['seconds'], '.2f'):>20}{spread(row['cpu_seconds'], '.2f'):>20}"
            f"{ratios[0]:>19}{ratios[1]:>15}"
        )
    print(machine)


if __name__ == "__main__":
    main(tyro.cli(Stages))
