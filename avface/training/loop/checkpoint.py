"""Checkpoints: weights, their moving average, the optimiser's state and the progress of a run, as safetensors.

The recipe is inside; a run resumes only with the same one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.files.weight_file import first_difference


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time that they took, in all sessions."""
    losses: list[float] = field(default_factory=list)
    """Mean total loss between reports."""
    random_state: dict[str, Any] = field(default_factory=dict)
    """Of random streams that go on from step to step, as `Task.random_state` returns it."""


def save_checkpoint(
    path: Path,
    kind: str,
    recipe: Mapping[str, Any],
    networks: nn.Module,
    average: nn.Module,
    optimiser: Optimizer,
    progress: Progress,
) -> None:
    """Write the state; the file appears whole.

    kind: training and format version, "avface coarse training 2"; recipe: what decides about the weights, as JSON can
    store it.

    Raises:
        AvfaceError: if it can't be written.
    """
    tensors = {f"networks.{name}": value for name, value in networks.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
    described = {
        "format": kind,
        "recipe": json.dumps(dict(recipe), sort_keys=True),
        "progress": json.dumps(vars(progress)),
    }
    write_tensors(path, tensors, described)


def load_checkpoint(
    path: Path,
    kind: str,
    recipe: Mapping[str, Any],
    networks: nn.Module,
    average: nn.Module,
    optimiser: Optimizer,
) -> Progress:
    """Restore the state that `save_checkpoint` wrote in networks, average and optimiser.

    Raises:
        AvfaceError: if the file is damaged, of another kind, or belongs to another recipe.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error)) from None
    if metadata.get("format") != kind:
        raise AvfaceError(f"{path}: not a checkpoint of this version's training; name another --out")
    try:
        found = json.loads(metadata["recipe"])
        progress = Progress(**json.loads(metadata["progress"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, str(error)) from None
    wanted = json.loads(json.dumps(dict(recipe)))  # with lists where it has tuples
    if found != wanted:
        raise AvfaceError(
            f"{path}: a run of another recipe ({first_difference(found, wanted)}); give the same options, "
            "name another --out, or delete it"
        )
    parts: dict[str, dict[str, Tensor]] = {"networks": {}, "average": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, inner = name.partition(".")
        if part not in parts:
            raise damaged(path, f"unknown entry {name}")
        parts[part][inner] = value
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise damaged(path, "numbers that aren't finite")
    try:
        networks.load_state_dict(parts["networks"])
        average.load_state_dict(parts["average"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimiser"].items():
            number, _, entry = name.partition(".")
            state.setdefault(int(number), {})[entry] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    except (RuntimeError, KeyError, ValueError) as error:
        raise damaged(path, str(error).splitlines()[0]) from None
    return progress


def damaged(path: Path, reason: str) -> AvfaceError:
    """The error of a checkpoint that can't be used."""
    return AvfaceError(f"{path}: damaged checkpoint ({reason}); delete it to train from the beginning")
