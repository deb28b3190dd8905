"""Speed of the rasteriser on the open head, by batch size, with and without gradients, and its exactness."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from samples import as_json, check_positive, spread
from torch import Tensor

from avface.evaluation.machine import describe_machine
from avface.geometry.camera import Camera
from avface.geometry.rasteriser import rasterise
from avface.head import load_head

DISTANCE = 0.6
"""Metres from the camera to the head, which fills the image's height."""


@dataclass(frozen=True)
class Rasteriser:
    """Measure the rasteriser on the open head, which fills the image."""

    sizes: tuple[int, ...] = (224, 512)
    """Sides of the square images in pixels."""
    batches: tuple[int, ...] = (1, 16, 64)
    """Batch sizes."""
    devices: tuple[str, ...] = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
    """Torch devices."""
    repeats: int = 30
    """Repetitions for one image; fewer for batches, but at least 3."""
    threads: int = 1
    """CPU threads of torch; more rarely help for such small images."""
    meshes: int = 200
    """Random meshes that are compared with brute force: every triangle at every pixel."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "sizes", "batches", "repeats", "threads")


def main(options: Rasteriser) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    rows = []
    for device in options.devices:
        for size in options.sizes:
            for batch in options.batches:
                repeats = max(3, options.repeats // batch)
                forward, both = measure(size, batch, device, repeats)
                rows.append(
                    {"device": device, "size": size, "batch": batch, "repeats": repeats}
                    | {"draw_ms": forward, "draw_and_gradient_ms": both}
                )
    exact = {device: exactness(device, options.meshes) for device in options.devices}
    machine = describe_machine()
    if options.json:
        times = ("draw_ms", "draw_and_gradient_ms")
        rows_in_short = [row | {key: as_json(row[key]) for key in times} for row in rows]
        print(json.dumps({"times": rows_in_short, "exactness": exact, "machine": machine}, indent=2))
        return
    print("open head, milliseconds per image: median (min-max)")
    print(f"{'device':>8}{'size':>6}{'batch':>7}{'draw':>24}{'draw and gradient':>26}")
    for row in rows:
        forward, both = spread(row["draw_ms"], ".2f"), spread(row["draw_and_gradient_ms"], ".2f")
        print(f"{row['device']:>8}{row['size']:6d}{row['batch']:7d}{forward:>24}{both:>26}")
    for device, found in exact.items():
        print(
            f"{device}: {found['wrong']} pixels of {found['pixels']} on {found['meshes']} random meshes show another "
            f"triangle than a double precision reference ({found['ties']} ties left out); barycentrics differ by "
            f"{found['barycentric_error']:.1e} at most"
        )
    print(f"{machine}; {options.threads} CPU threads")


def measure(size: int, batch: int, device: str, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds per image of each repetition: forward, and forward with the gradient of depth and barycentrics."""
    head = load_head("open").to(device)
    points = head.neutral(torch.zeros(head.num_shape, device=device)).detach()
    points = points * points.new_tensor([1.0, -1.0, -1.0])  # facing the camera
    points = points - points.mean(0) + points.new_tensor([0.0, 0.0, DISTANCE])
    height = points[:, 1].max() - points[:, 1].min()
    camera = Camera.centred(0.95 * size * DISTANCE / float(height), size, size)
    # the images differ by a shift of up to a pixel
    aside = torch.linspace(0, 1, batch, device=device)[:, None, None] * points.new_tensor([1.0, 0.0])
    pixels, depth = camera.project(points) + aside, points[:, 2].expand(batch, -1)

    def draw() -> None:
        rasterise(pixels, depth, head.faces, size, size)

    def draw_and_gradient() -> None:
        places, distances = pixels.detach().requires_grad_(), depth.detach().requires_grad_()
        seen = rasterise(places, distances, head.faces, size, size)
        (seen.barycentric.square().sum() + seen.depth[seen.triangle >= 0].sum()).backward()

    return (
        [value / batch for value in timed(draw, device, repeats)],
        [value / batch for value in timed(draw_and_gradient, device, repeats)],
    )


def timed(work: Callable[[], None], device: str, repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` runs after two warm-up runs."""
    times = []
    for _ in range(repeats + 2):
        _finish(device)
        begin = time.perf_counter()
        work()
        _finish(device)
        times.append(1000 * (time.perf_counter() - begin))
    return times[2:]


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def exactness(device: str, meshes: int, size: int = 48) -> dict[str, float | int]:
    """Random meshes rasterised as one batch, compared with brute force in double precision."""
    generator = torch.Generator().manual_seed(0)
    vertices, count = 120, 80
    faces = torch.randint(0, vertices, (count, 3), generator=generator)
    faces[: vertices // 6] = torch.arange(vertices // 2).view(-1, 3)
    # from tiny triangles around a few points to triangles larger than the image
    spread_out = 10 ** (4 * torch.rand(meshes, 1, 1, generator=generator) - 1)
    centres = torch.rand(meshes, vertices, 2, generator=generator).mul_(size)
    centres[:, : vertices // 2] = centres[:, : vertices // 2 : 3].repeat_interleave(3, 1)
    pixels = centres + spread_out * torch.randn(meshes, vertices, 2, generator=generator)
    depth = 0.2 + 3 * torch.rand(meshes, vertices, generator=generator) ** 2
    seen = rasterise(pixels.to(device), depth.to(device), faces.to(device), size, size)
    shown, wrong, ties, error = 0, 0, 0, 0.0
    for mesh in range(meshes):
        triangle, barycentric, unsure = brute_force(pixels[mesh], depth[mesh], faces, size)
        differs = seen.triangle[mesh].cpu() != triangle
        shown += int(((triangle >= 0) & ~unsure).sum())
        wrong, ties = wrong + int((differs & ~unsure).sum()), ties + int(unsure.sum())
        off = (seen.barycentric[mesh].cpu() - barycentric)[~differs & ~unsure].abs()
        error = max(error, float(off.max()) if len(off) else 0.0)
    return {
        "meshes": meshes,
        "pixels": shown,
        "ties": ties,
        "wrong": wrong,
        "barycentric_error": error,
    }


def brute_force(pixels: Tensor, depth: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Triangle, barycentrics and whether it is a tie up to rounding, at every pixel of a square image."""
    corners, near = pixels.double()[faces], 1 / depth.double()[faces]
    y, x = torch.meshgrid(torch.arange(size).double(), torch.arange(size).double(), indexing="ij")
    x, y = corners[:, None, None, :, 0] - x[..., None], corners[:, None, None, :, 1] - y[..., None]
    areas = x.roll(-1, -1) * y.roll(-2, -1) - y.roll(-1, -1) * x.roll(-2, -1)
    whole = areas.sum(-1, keepdim=True)
    areas = areas / torch.where(whole == 0, torch.nan, whole)
    weights = areas * near[:, None, None]
    nearness = torch.where((areas >= 0).all(-1), weights.sum(-1), 0.0)
    best, triangle = nearness.max(0)
    shown = best > 0
    barycentric = weights.gather(0, triangle[None, ..., None].expand(-1, -1, -1, 3))[0] / best[..., None]
    on_edge = ((areas.abs().amin(-1) < 1e-9) & (areas > -1e-9).all(-1)).any(0)
    rivals = shown & (nearness > best * (1 - 1e-9)).sum(0).gt(1)
    return (
        torch.where(shown, triangle, -1),
        torch.where(shown[..., None], barycentric, 0.0),
        on_edge | rivals,
    )


if __name__ == "__main__":
    main(tyro.cli(Rasteriser))
