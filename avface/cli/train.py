"""The verb `train`: the trainings of all networks, and the measurement of the shape prior.

The options of a training are the fields of its recipe, whose modules import torch. So this module only lists the
trainings; the parser of one of them is built when the command names it (`training_parser`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass, replace
from importlib import import_module
from typing import Annotated, Any, Union

from tyro.conf import CascadeSubcommandArgs, arg, subcommand

from avface.cli.arguments import PRINT_ALL, Messages, Outcome
from avface.cli.terminal import Bars, listing, sizes
from avface.errors import AvfaceError


@dataclass(frozen=True)
class Training:
    """A training, as the verb lists it."""

    module: str
    """Module in `avface.training` that has its options as `Command`."""
    summary: str
    """Its line in the help."""


TRAININGS = {
    "coarse": Training("coarse.train", "Coarse networks: shape, pose, camera and expression."),
    "lips": Training("lips.train", "Lips network: lip motion from sound."),
    "detail": Training("detail.train", "Detail network: displacement of folds and wrinkles."),
    "landmarks": Training("landmarks.train", "Landmark network: corrections of tracked landmarks."),
    "motion": Training(
        "landmarks.motion", "Landmark motion network: motion of landmarks, and expression weights."
    ),
    "acoustic": Training("acoustic.train", "Acoustic model: phones and lip opening from sound."),
    "hearing": Training(
        "hearing.train", "Speech readout: phones and lips from the states of the speech encoder."
    ),
    "visibility": Training("visibility", "Occlusion detection of the tracker."),
    "shape-prior": Training("shape_prior", "Shape prior of the solver, and the errors of the tracker."),
    "ablation-rows": Training(
        "coarse.ablation_rows", "Coarse networks for the rows of `avface evaluate ablation`."
    ),
}
"""All trainings by name."""


@dataclass(frozen=True)
class Named:
    """A training that is only named; `training_parser` knows its options."""


_ANY_TRAINING: Any = Union[  # noqa: UP007 - a union of as many types as there are trainings
    tuple(Annotated[Named, subcommand(name, description=each.summary)] for name, each in TRAININGS.items())
]


@dataclass(frozen=True)
class Train:
    """Train a network, or measure the shape prior; options differ.

    Needs `pip install avface[train]`, and most of them `avface[build]` for synthetic data. `avface train NAME --help`
    explains the options of one. An interrupted training resumes when the same command is given again.
    """

    what: _ANY_TRAINING
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Never called: `training_parser` takes over where the command names a training."""
        raise AssertionError(self.what)


@dataclass(frozen=True)
class TrainingCommand:
    """A parsed training, with the fields `options` (what the module's `Command` parses) and `printing`."""

    @property
    def messages(self) -> Messages:
        """Its output options; of several processes only the first prints."""
        if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
            return Messages(quiet=True)
        return self.printing  # type: ignore[attr-defined]

    def run(self, bars: Bars) -> Outcome:
        """Train."""
        options: Any = self.options  # type: ignore[attr-defined]
        module = import_module(type(options).__module__)
        name = next(
            name for name, each in TRAININGS.items() if module.__name__ == f"avface.training.{each.module}"
        )
        if name == "visibility":
            count = module.train(options, lambda done, total: bars("reading clips", done, total))
            text = f"{listing([options.out])}, from {count} clips"
            return Outcome(text, {"written": sizes([options.out]), "clips": count})
        if name == "shape-prior":
            files = module.train(options, lambda done, total: bars("measuring clips", done, total))
            return Outcome(listing(files), {"written": sizes(files)})
        quiet = self.messages.quiet or self.messages.json
        options = replace(options, run=replace(options.run, quiet=quiet))
        if name == "ablation-rows":
            files = module.train_rows(options)
            return Outcome(listing(files), {"written": sizes(files)})
        result = module.train(options)
        facts = {
            "written": sizes([options.out]),
            "steps": result.progress.step,
            "seconds": round(result.progress.seconds, 1),
            "losses": result.progress.losses,
            "errors": result.errors,
        }
        return Outcome(f"{listing([options.out])}\n{result}", facts)


def training_parser(words: Sequence[str]) -> tuple[Any, str] | None:
    """What tyro parses for `avface train NAME ...`, and its description; None if the words name no training.

    Raises:
        AvfaceError: if a package that the training needs isn't installed.
    """
    if list(words[:1]) != ["train"] or len(words) < 2 or words[1] not in TRAININGS:
        return None
    try:
        module = import_module(f"avface.training.{TRAININGS[words[1]].module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "avface":
            raise
        raise AvfaceError(
            f"training needs {error.name}; install it with: pip install 'avface[train,build]'"
        ) from None
    fields: list[Any] = [
        ("options", Annotated[module.Command, arg(name="")]),
        ("printing", CascadeSubcommandArgs[Annotated[Messages, arg(name="")]], PRINT_ALL),
    ]
    command = make_dataclass("Command", fields, bases=(TrainingCommand,), frozen=True)
    return command, (module.__doc__ or "")
