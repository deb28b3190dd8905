"""How long it takes to draw the open head, with and without gradients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from samples import as_json, spread

from avface.evaluation.machine import describe_machine
from avface.geometry.camera import Camera
from avface.geometry.rasteriser import rasterise
from avface.head import load_head

DISTANCE = 0.6
"""Metres from the camera to the head, which then fills the picture's height."""


@dataclass(frozen=True)
class Rasteriser:
    """Measure the rasteriser on the open head, which fills the picture."""

    sizes: tuple[int, ...] = (224, 512)
    """Sides of the square pictures in pixels."""
    repeats: int = 30
    """How often each is drawn."""
    device: str = "cpu"
    """Torch device."""
    threads: int = 1
    """CPU threads of torch; for pictures this small more rarely help."""
    json: bool = False
    """Print JSON instead of a table."""


def main(options: Rasteriser) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    results = {}
    for size in options.sizes:
        forward, both = measure(size, options.device, options.repeats)
        results[size] = {"draw_ms": forward, "draw_and_gradient_ms": both}
    if options.json:
        sizes = {size: {name: as_json(times) for name, times in row.items()} for size, row in results.items()}
        print(json.dumps({"sizes": sizes, "repeats": options.repeats, "machine": machine}, indent=2))
        return
    print(f"open head, milliseconds a picture; median of {options.repeats} (min-max)")
    print(f"{'size':>6}{'draw':>22}{'draw and gradient':>24}")
    for size, row in results.items():
        print(f"{size:6d}{spread(row['draw_ms']):>22}{spread(row['draw_and_gradient_ms']):>24}")
    print(f"{machine}; {options.device}, {options.threads} threads")


def measure(size: int, device: str, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each repeat: drawing, and drawing with the gradient of depth and barycentrics."""
    head = load_head("open").to(device)
    points = head.neutral(torch.zeros(head.num_shape, device=device)).detach()
    points = points * points.new_tensor([1.0, -1.0, -1.0])  # facing the camera
    points = points - points.mean(0) + points.new_tensor([0.0, 0.0, DISTANCE])
    height = points[:, 1].max() - points[:, 1].min()
    camera = Camera.centred(0.95 * size * DISTANCE / float(height), size, size)
    pixels, depth = camera.project(points), points[:, 2]

    def draw() -> None:
        rasterise(pixels, depth, head.faces, size, size)

    def draw_and_gradient() -> None:
        seen = rasterise(pixels.requires_grad_(), depth.requires_grad_(), head.faces, size, size)
        (seen.barycentric.sum() + seen.depth[seen.triangle >= 0].sum()).backward()

    return timed(draw, device, repeats), timed(draw_and_gradient, device, repeats)


def timed(work: Callable[[], None], device: str, repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` runs, after two that aren't counted."""
    times = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return times[2:]


if __name__ == "__main__":
    main(tyro.cli(Rasteriser))
