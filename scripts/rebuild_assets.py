"""Makes everything again that is made from the open head, in its order, and puts it into the package.

    python scripts/rebuild_assets.py WORK              # all of it: about five hours on two cores
    python scripts/rebuild_assets.py WORK --list       # the steps, and what each took
    python scripts/rebuild_assets.py WORK --only lips  # one step, from what the others left in WORK

Needs `pip install -e ".[dev,build]"`. Each step works in a folder of its own, WORK/STEP. It is skipped while its
command and the files it reads are what they were when it last ended; an interrupted one goes on where it stopped, as
its command does, unless they have changed: then it begins anew. Up to two steps that don't need each other run at once.
Not made again: the occluders' hand, the acoustic model, the speech encoder and its readout, which don't depend on the
head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "avface"
PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class Step:
    """One command. Paths are relative to the step's folder, or to the package where they begin with `avface/`."""

    name: str
    command: tuple[str, ...]
    """Arguments of the Python interpreter behind -m; the step's folder is the current one."""
    needs: tuple[str, ...] = ()
    """Steps whose results it reads."""
    makes: tuple[str, ...] = ()
    """Files or folders."""
    installs: tuple[tuple[str, str], ...] = ()
    """Files that are copied into the package when it has ended: from the step's folder, to a path in the package."""


STEPS = (
    Step(
        "head",
        ("avface", "head", "build-open", "-o", "open.npz"),
        makes=("open.npz",),
        installs=(("open.npz", "head/assets/open.npz"),),
    ),
    Step(
        "demo",
        ("avface.synthetic.demo_clip",),
        needs=("head",),
        makes=("avface/synthetic/assets/demo.mp4", "avface/synthetic/assets/demo_truth.npz"),
    ),
    Step(
        "clips",
        ("avface", "synthesize", "clips", "--clips", "155", "--seed", "11", "--occluded", "0.4"),
        needs=("head",),
        makes=("clips",),
    ),
    Step(
        "visibility",
        ("avface", "train", "visibility", "../clips/clips"),
        needs=("clips",),
        makes=("avface/tracking/assets/visibility.npz", "avface/tracking/assets/face_layout.npz"),
    ),
    Step(
        "shards",
        ("avface", "data", "prepare", "../clips/clips", "shards", "--test", "0.1"),
        needs=("clips", "visibility"),
        makes=("shards",),
    ),
    Step(
        "coarse-default",
        (
            "avface",
            "train",
            "coarse",
            "default",
            "../shards/shards",
            "--out",
            "coarse-default.safetensors",
            "--time-limit",
            "42",
        ),
        needs=("shards",),
        makes=("coarse-default.safetensors",),
    ),
    Step(
        "coarse",
        (
            *("avface", "train", "coarse", "occlusion", "../shards/shards"),
            *("--start", "../coarse-default/coarse-default.safetensors"),
            *("--out", "coarse.safetensors", "--time-limit", "31"),
        ),
        needs=("shards", "coarse-default"),
        makes=("coarse.safetensors",),
        installs=(("coarse.safetensors", "networks/assets/coarse.safetensors"),),
    ),
    Step(
        "landmarks",
        (  # goes on from the weights of the head before
            *("avface", "train", "landmarks", "--out", "landmarks.safetensors"),
            *("--start", str(PACKAGE / "networks/assets/landmarks.safetensors")),
            *("--views.people", "400", "--steps", "5000", "--learning-rate", "5e-4"),
        ),
        needs=("visibility",),
        makes=("landmarks.safetensors",),
        installs=(("landmarks.safetensors", "networks/assets/landmarks.safetensors"),),
    ),
    Step(
        "shape-prior",
        ("avface", "train", "shape-prior", "--out", "prior", "--workers", "1"),
        needs=("landmarks",),
        makes=("prior",),
        installs=tuple(
            (f"prior/{name}", f"solve/assets/{name}")
            for name in ("shape_prior.npz", "shape_prior_corrected.npz")
        ),
    ),
    Step(
        "lips",
        ("avface", "train", "lips", "--out", "lips.safetensors", "--time-limit", "22"),
        needs=("head",),
        makes=("lips.safetensors",),
        installs=(("lips.safetensors", "networks/assets/lips.safetensors"),),
    ),
    Step(
        "detail",
        ("avface", "train", "detail", "--out", "detail.safetensors"),
        needs=("visibility",),
        makes=("detail.safetensors",),
        installs=(("detail.safetensors", "networks/assets/detail.safetensors"),),
    ),
)
"""All steps, each behind those it needs."""


def results(step: Step, work: Path) -> list[Path]:
    """What a step makes."""
    return [
        PACKAGE.parent / path if path.startswith("avface/") else work / step.name / path
        for path in step.makes
    ]


def content_hash(paths: Iterable[Path]) -> str:
    """Hash of files' contents; of folders, of the names and sizes of what is in them (they hold gigabytes)."""
    result = hashlib.sha256()
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    result.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        elif path.is_file():
            result.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            result.update(b"missing")
    return result.hexdigest()[:16]


def fingerprint(step: Step, work: Path) -> str:
    """Hash of a step's command and of what the steps it needs have made."""
    by_name = {other.name: other for other in STEPS}
    inputs = [path for need in step.needs for path in results(by_name[need], work)]
    return hashlib.sha256((repr(step.command) + content_hash(inputs)).encode()).hexdigest()[:16]


class Records:
    """What began and ended, with fingerprints and minutes, in WORK/steps.json."""

    def __init__(self, work: Path) -> None:
        self._path = work / "steps.json"
        self.steps: dict[str, dict[str, object]] = (
            json.loads(self._path.read_text()) if self._path.exists() else {}
        )

    def is_current(self, step: Step, work: Path) -> bool:
        """Whether a step has ended with today's command and inputs, and its results are still there."""
        record = self.steps.get(step.name, {})
        return (
            "minutes" in record
            and record["fingerprint"] == fingerprint(step, work)
            and all(path.exists() for path in results(step, work))
        )

    def begin(self, step: Step, work: Path) -> None:
        """Prepare a step's folder: what it holds stays if the step was interrupted with the same command and inputs."""
        mark = fingerprint(step, work)
        record = self.steps.get(step.name, {})
        if "minutes" in record or record.get("fingerprint") != mark:
            shutil.rmtree(work / step.name, ignore_errors=True)
        (work / step.name).mkdir(exist_ok=True)
        self._store(step.name, {"fingerprint": mark})

    def end(self, step: Step, minutes: float) -> None:
        """Store that a step has ended."""
        self._store(step.name, {**self.steps[step.name], "minutes": round(minutes, 1)})

    def _store(self, name: str, record: dict[str, object]) -> None:
        self.steps[name] = record
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.steps, indent=1))
        os.replace(part, self._path)


def install(step: Step, work: Path) -> None:
    """Copy a step's results into the package, each whole or not at all; a new head changes `OPEN_DIGEST`, too."""
    for source, target in step.installs:
        part = (PACKAGE / target).with_suffix(".part")
        shutil.copyfile(work / step.name / source, part)
        os.replace(part, PACKAGE / target)
    if step.name == "head":
        name_digest()


def name_digest() -> None:
    """Write the digest of the package's head into `avface/open_head.py`."""
    code = "from avface.head import load_head; print(load_head().digest())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, capture_output=True, text=True
    )
    module = PACKAGE / "open_head.py"
    text, count = re.subn(
        r'(?m)^OPEN_DIGEST = ".*"$', f'OPEN_DIGEST = "{done.stdout.strip()}"', module.read_text()
    )
    if count != 1:
        raise SystemExit(f"{module}: OPEN_DIGEST not found")
    module.write_text(text)


def rebuild(work: Path, chosen: set[str], jobs: int) -> None:
    """Run the chosen steps that aren't current; raises SystemExit if one fails, after all that don't need it."""
    records = Records(work)
    running: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
    waiting = [step for step in STEPS if step.name in chosen]
    failed: set[str] = set()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent)}
    while running or waiting:
        for step in list(waiting):
            if lacking := failed & set(step.needs):
                waiting.remove(step)
                failed.add(step.name)
                print(f"{step.name}: not run, without {', '.join(sorted(lacking))}", flush=True)
                continue
            unfinished = {other.name for other in waiting} | set(running)
            if len(running) >= jobs or unfinished & set(step.needs):
                continue
            waiting.remove(step)
            if records.is_current(step, work):
                print(f"{step.name}: unchanged", flush=True)
                continue
            records.begin(step, work)
            print(f"{step.name}: python -m {' '.join(step.command)}", flush=True)
            with (work / f"{step.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [*PYTHON, *step.command], cwd=work / step.name, env=environment, stdout=log, stderr=log
                )
            running[step.name] = (step, process, time.monotonic())
        for name, (step, process, start) in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            minutes = (time.monotonic() - start) / 60
            if process.returncode:
                failed.add(name)
                print(f"{name}: failed after {minutes:.1f} min; see {work / name}.log", flush=True)
                continue
            install(step, work)
            records.end(step, minutes)
            print(f"{name}: {minutes:.1f} min", flush=True)
        time.sleep(0.2)
    if failed:
        raise SystemExit(1)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make everything again that is made from the open head.")
    parser.add_argument("work", type=Path, help="folder for intermediate results; resumes what it holds")
    names = [step.name for step in STEPS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="STEP", help=f"of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=2, help="steps that run at once (default: 2)")
    parser.add_argument(
        "--list", action="store_true", help="print the steps and what each took, and run none"
    )
    given = parser.parse_args()
    work = given.work.resolve()
    if given.list:
        records = Records(work)
        for step in STEPS:
            record = records.steps.get(step.name, {})
            took = f"{record['minutes']} min" if "minutes" in record else "not made yet"
            print(f"{step.name:15} {took:>12}  python -m {' '.join(step.command)}")
        return
    work.mkdir(parents=True, exist_ok=True)
    rebuild(work, set(given.only or names), max(given.jobs, 1))


if __name__ == "__main__":
    main()
