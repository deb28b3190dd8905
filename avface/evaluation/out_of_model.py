"""Scans of out-of-model heads (`avface.synthetic.out_of_model`), for the shape protocol."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avface.arrays import F64, Floats, Int
from avface.errors import AvfaceError
from avface.evaluation.scan_to_mesh import NOW_LANDMARKS
from avface.head import HeadModel
from avface.synthetic.out_of_model import OutOfModelConfig, film, out_of_model_head, out_of_model_scene

__all__ = [
    "OutOfModelConfig",
    "Scan",
    "film",
    "in_processes",
    "out_of_model_head",
    "out_of_model_scene",
    "scan",
    "seven_landmarks",
    "skin_triangles",
]


_SCAN = 0x5CA


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of a neutral face: points (N, 3) sampled uniformly on the skin, and landmarks (7, 3), `NOW_LANDMARKS`.
    Metres in the head's frame."""

    points: F64
    landmarks: F64


def scan(head: HeadModel, points: int = 20_000, seed: int = 0) -> Scan:
    """Scan of a head's template: points sampled uniformly by area on the front half of the skin."""
    rng = np.random.default_rng([seed, _SCAN])
    vertices, triangles = head.template.double().numpy(), skin_triangles(head)
    triangles = triangles[vertices[triangles][..., 2].mean(1) > np.median(vertices[:, 2])]
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), points, p=area / area.sum())
    u, v = rng.uniform(size=(2, points, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return Scan(a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen], seven_landmarks(head, vertices))


def in_processes(
    work: Callable[..., None], jobs: Sequence[tuple[Any, ...]], folder: Path, workers: int | None
) -> Iterator[None]:
    """Call a function with the arguments of each job, in `workers` processes, by default one per core; yields after
    each job. One process is this one.

    Raises:
        AvfaceError: if a process dies, and as the function does; folder: of the results, for the message.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(jobs))
    if workers <= 1:
        for job in jobs:
            work(*job)
            yield
        return
    context = multiprocessing.get_context("spawn")  # torch's threads deadlock in forked processes
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool:
            raise AvfaceError(
                f"{folder}: a worker process died, perhaps out of memory; run again with fewer workers"
            ) from None
        finally:
            for future in futures:
                future.cancel()


def skin_triangles(head: HeadModel) -> Int:
    """Triangles (F, 3) of the skin, without eyeballs, teeth and tongue."""
    return np.asarray(head.faces.numpy()[head.face_parts == head.part_names.index("skin")], np.int64)


def seven_landmarks(head: HeadModel, vertices: Floats) -> F64:
    """The points (7, 3) of `NOW_LANDMARKS` on a mesh (V, 3) of the head's topology."""
    return np.asarray(head.embedding("ibug68").on(vertices)[NOW_LANDMARKS])
