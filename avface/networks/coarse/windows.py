"""Clips of any length: frames are embedded once, and the codes of overlapping windows are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from avface.geometry.rotations import nearest_rotation
from avface.networks.coarse.codes import CoarseCode, ExpressionCode
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.frames import FaceCrop, Frames


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of T frames of each of B clips, about 1.3 kB a frame."""

    coarse: Tensor
    """(B, T, C) of E_c."""
    expression: Tensor
    """(B, T, D) of the expression branch."""
    crop: FaceCrop
    """Squares (B, T)."""


@torch.no_grad()
def embed(networks: CoarseNetworks, frames: Frames, *, block: int = 64) -> Embeddings:
    """Embed frames independently, `block` at a time, on the networks' device, where the result stays."""
    return join(
        _embed(networks, frames.part(start, start + block)) for start in range(0, frames.count, block)
    )


def join(parts: Iterable[Embeddings]) -> Embeddings:
    """Concatenate consecutive parts of the same clips."""
    held = list(parts)

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors, 1)

    return Embeddings(
        joined([part.coarse for part in held]),
        joined([part.expression for part in held]),
        FaceCrop(
            joined([part.crop.box for part in held]),
            joined([part.crop.focal_length for part in held]),
            joined([part.crop.principal_point for part in held]),
        ),
    )


@torch.no_grad()
def read_windows(
    networks: CoarseNetworks, embeddings: Embeddings, *, block: int = 64
) -> tuple[CoarseCode, ExpressionCode]:
    """Codes (B, T) of clips of any length from their embeddings.

    All windows of 16 frames with stride 1 are processed (a shorter clip is one window), `block` at a time. A frame's
    code is the mean over the windows that contain it, 16 for most; of the rotation it is the rotation nearest to the
    mean matrix. Log-variances are averaged without reduction, because the errors of the windows are correlated.
    """
    crop = embeddings.crop

    def of_windows(cut: _Cut) -> CoarseCode:
        places = FaceCrop(cut(crop.box), cut(crop.focal_length), cut(crop.principal_point))
        return networks.coarse.read(cut(embeddings.coarse), places)

    mean = _over_windows(networks, embeddings, of_windows, 1, block)
    mean["rotation"] = nearest_rotation(mean["rotation"])
    return CoarseCode(**mean), read_expression(networks, embeddings, block=block)


@torch.no_grad()
def read_expression(
    networks: CoarseNetworks, embeddings: Embeddings, *, step: int = 1, block: int = 64
) -> ExpressionCode:
    """Codes (B, T) of the expression branch alone, as of `read_windows`, from windows of stride `step`."""
    return ExpressionCode(
        **_over_windows(
            networks,
            embeddings,
            lambda cut: networks.expression.read(cut(embeddings.expression)),
            step,
            block,
        )
    )


def predict(
    networks: CoarseNetworks, frames: Frames, *, block: int = 64
) -> tuple[CoarseCode, ExpressionCode]:
    """Codes (B, T) of clips of any length: `embed`, then `read_windows`.

    Clips must be single shots, and networks in evaluation mode, since batch norm would mix frames otherwise.

    Raises:
        ValueError: if the networks are in training mode.
    """
    if networks.training:
        raise ValueError("prediction needs networks in evaluation mode: call eval() on them")
    return read_windows(networks, embed(networks, frames, block=block), block=block)


def _embed(networks: CoarseNetworks, frames: Frames) -> Embeddings:
    frames = frames.to(networks.coarse.unseen.device)
    return Embeddings(networks.coarse.embed(frames), networks.expression.embed(frames), frames.crop)


_Cut = Callable[[Tensor], Tensor]
"""Maps values (B, T, ...) to windows (B * W, L, ...): those of the first clip, of the second, ..."""


def _over_windows(
    networks: CoarseNetworks,
    embeddings: Embeddings,
    read: Callable[[_Cut], CoarseCode | ExpressionCode],
    step: int,
    block: int,
) -> dict[str, Tensor]:
    """Means (B, T, ...) over the windows that begin at each `step`-th frame, and the last window."""
    clips, count = embeddings.coarse.shape[:2]
    window = min(networks.config.window, count)
    device = embeddings.coarse.device
    last = count - window
    starts = torch.arange(0, last + step, step, device=device).clamp_max(last)
    times = torch.zeros(count, device=device)
    sums: dict[str, Tensor] = {}
    for some in starts.split(max(1, block // clips)):
        rows = some[:, None] + torch.arange(window, device=device)
        times.index_add_(0, rows.flatten(), times.new_ones(rows.numel()))

        def cut(values: Tensor, rows: Tensor = rows) -> Tensor:
            return values[:, rows].flatten(0, 1)

        code = read(cut)
        for name, values in vars(code).items():
            values = values.unflatten(0, (clips, len(rows))).flatten(1, 2)
            if name not in sums:
                sums[name] = values.new_zeros(clips, count, *values.shape[2:])
            sums[name].index_add_(1, rows.flatten(), values)
    return {
        name: total / times.view(1, -1, *[1] * (total.ndim - 2)).to(total.dtype)
        for name, total in sums.items()
    }
