"""The weight files of all networks: safetensors, with config and provenance as metadata.

A file is read in full and checked before a network is built from it: format tag, config, names, shapes and types of the
tensors, and that all numbers are finite. Every refusal is one line that names the file.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.files import write_tensors

Config = TypeVar("Config")
"""A frozen dataclass."""
Network = TypeVar("Network", bound=nn.Module)

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class WeightFormat(Generic[Config]):
    """The weight files of one network."""

    network: str
    """Name of the network in error messages: "lips network"."""
    config: type[Config]
    """Class of its config, which is stored as JSON."""
    tag: str
    """Identifies the network and the version of its format; stored as metadata."""
    training: str
    """Command that trains it, for error messages."""
    tag_key: str = "format"
    """Key of the tag in the metadata."""
    half_precision: bool = False
    """Whether floating-point tensors are stored as float16, which halves the download."""

    def save(
        self, path: Path, network: nn.Module, config: Config, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a network, its config and any further metadata (recipe, steps, ...); the file appears whole.

        Raises:
            AvfaceError: if the file can't be written.
        """
        state = network.state_dict()
        if self.half_precision:
            state = {
                name: value.half() if value.is_floating_point() else value for name, value in state.items()
            }
        self.save_tensors(path, state, config, metadata)

    def save_tensors(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        config: Config,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write tensors as they are, for networks whose weights are stored in another form; otherwise as `save`.

        Raises:
            AvfaceError: if the file can't be written.
        """
        own = {self.tag_key: self.tag, "config": json.dumps(asdict(config))}  # type: ignore[call-overload]
        write_tensors(path, dict(tensors), {**(metadata or {}), **own})

    def metadata(self, path: str | Path) -> dict[str, str]:
        """The metadata of a file alone, without its tensors.

        Raises:
            AvfaceError: if the file is missing, damaged or of another format.
        """
        return self._read(path, tensors=False)[0]

    def read(self, path: str | Path) -> WeightFile[Config]:
        """Config, tensors and metadata of a file.

        Raises:
            AvfaceError: if the file is missing, damaged or of another format, its config is invalid, or numbers aren't
                finite.
        """
        metadata, tensors = self._read(path)
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise AvfaceError(f"{path}: has weights that aren't finite; go back to an earlier file")
        try:
            config = config_from_plain(self.config, json.loads(metadata["config"]))
        except KeyError as error:
            raise AvfaceError(f"{path}: has no {error} in its metadata; {self.remedy}") from None
        except (TypeError, ValueError, AvfaceError) as error:
            raise AvfaceError(f"{path}: its config can't be read ({_line(error)}); {self.remedy}") from None
        return WeightFile(Path(path), self, config, tensors, metadata)

    def _read(self, path: str | Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                names = file.keys() if tensors else ()
                found = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            raise AvfaceError(f"{path}: no such file; fetch it, or train it with: {self.training}") from None
        except (SafetensorError, OSError) as error:
            raise AvfaceError(
                f"{path}: not a readable weights file ({_line(error)}); {self.remedy}"
            ) from None
        if metadata.get(self.tag_key) != self.tag:
            raise AvfaceError(f"{path}: not weights of this version's {self.network}; {self.remedy}")
        return metadata, found

    @property
    def remedy(self) -> str:
        """What to do about a file that can't be used."""
        return f"fetch it again, or train it with: {self.training}"


@dataclass(frozen=True, eq=False)
class WeightFile(Generic[Config]):
    """The content of a weight file."""

    path: Path
    format: WeightFormat[Config]
    config: Config
    tensors: dict[str, Tensor]
    """As they are stored."""
    metadata: dict[str, str]
    """All of it: recipe and other provenance, too."""

    def with_tensors(self, tensors: dict[str, Tensor]) -> WeightFile[Config]:
        """The same file with its tensors in another form."""
        return replace(self, tensors=tensors)

    def network(self, build: Callable[[Config], Network]) -> Network:
        """The network that `build` makes of the config, with the weights of the file, in evaluation mode.

        Floating-point tensors take the type that the network has. A network built on the meta device takes the tensors
        themselves.

        Raises:
            AvfaceError: if it can't be built, or names, shapes or types of the tensors aren't the network's.
        """
        try:
            network = build(self.config)
        except (KeyError, TypeError, ValueError, RuntimeError, AvfaceError) as error:
            raise AvfaceError(
                f"{self.path}: its weights can't be used ({_line(error)}); {self.format.remedy}"
            ) from None
        expected = network.state_dict()
        wrong = sorted(expected.keys() ^ self.tensors.keys()) + [
            name
            for name in expected.keys() & self.tensors.keys()
            if not _fits(self.tensors[name], expected[name])
        ]
        if wrong:
            raise AvfaceError(
                f"{self.path}: damaged: its weights don't fit its config ({len(wrong)} of them, the first is "
                f"{wrong[0]}); {self.format.remedy}"
            )
        state = {name: value.to(expected[name].dtype) for name, value in self.tensors.items()}
        network.load_state_dict(state, assign=any(value.is_meta for value in expected.values()))
        return network.eval()


@dataclass(eq=False)
class Pretrained(Generic[Network]):
    """The weights of one network that come with avface; called with a device, the network, loaded once for each.

    Raises (when called):
        AvfaceError: if the file is missing or damaged.
    """

    package: str
    """Package of avface with the file among its assets: "networks"."""
    name: str
    """Name of the file."""
    load: Callable[[Path], Network]
    """Reads such a file."""
    path: Path = field(init=False)
    """The file."""
    _loaded: dict[tuple[Path, str], Network] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.path = _PACKAGE / self.package / "assets" / self.name

    def __call__(self, device: str = "cpu") -> Network:
        """The network on a device, without gradients."""
        key = self.path, device
        if key not in self._loaded:
            self._loaded[key] = self.load(self.path).requires_grad_(False).to(device)
        return self._loaded[key]

    def of_head(self, head: str, device: str = "cpu") -> Network | None:
        """The network on a device if it was trained for the head of this name; None for others, or without the file.

        The config of the network must name its head in the field `head`.

        Raises:
            AvfaceError: if the file is damaged.
        """
        if not self.path.exists():
            return None
        network = self(device)
        config: Any = network.config
        return network if config.head == head else None


def config_from_plain(kind: type[Config], values: Any) -> Config:
    """A tree of config dataclasses from what JSON keeps of `asdict`.

    A field that is a union of dataclasses is resolved by their field `kind`.

    Raises:
        TypeError, ValueError, AvfaceError: if settings are missing, unknown, of another type or out of range.
    """
    config: Config = _from_plain(kind, values, "")
    return config


def first_difference(found: Mapping[str, Any], expected: Mapping[str, Any], where: str = "") -> str:
    """The first setting in which two trees of settings differ, in words.

    Raises:
        ValueError: if they don't differ.
    """
    for name in [*expected, *(name for name in found if name not in expected)]:
        one, other = found.get(name), expected.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if one != other:
                return first_difference(one, other, f"{where}{name}.")
        elif one != other:
            return f"{where}{name} is {one}, not {other}"
    raise ValueError("there is no difference")


def _from_plain(kind: Any, value: Any, where: str) -> Any:
    """A value of the annotated type `kind`; `where` is the name of the setting."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        named = value.get("kind") if isinstance(value, dict) else None
        chosen = [choice for choice in choices if get_args(get_type_hints(choice)["kind"]) == (named,)]
        if not chosen:
            raise ValueError(f"{where}: unknown kind {named!r}")
        return _from_plain(chosen[0], value, where)
    if is_dataclass(kind):
        names = {entry.name for entry in fields(kind)}
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'it'} is {value!r}, not a group of settings")
        if value.keys() != names:
            missing, unknown = sorted(names - value.keys()), sorted(value.keys() - names)
            said = [
                f"{what} {', '.join(some)}" for what, some in (("no", missing), ("unknown", unknown)) if some
            ]
            raise ValueError(f"{where + ': ' if where else ''}{' and '.join(said)}")
        hints = get_type_hints(kind)
        inner = {
            name: _from_plain(hints[name], part, f"{where}.{name}".lstrip("."))
            for name, part in value.items()
        }
        return kind(**inner)  # type: ignore[operator]
    if origin is tuple and isinstance(value, list):
        kinds = choices[:1] * len(value) if choices[-1] is Ellipsis else choices
        if len(kinds) != len(value):
            raise ValueError(f"{where} has {len(value)} values, not {len(kinds)}")
        return tuple(_from_plain(one, part, where) for one, part in zip(kinds, value, strict=True))
    if origin is Literal:
        if value not in choices:
            raise ValueError(f"{where} is {value!r}, not one of {', '.join(map(repr, choices))}")
        return value
    accepted = (int, float) if kind is float else tuple if origin is tuple else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {value!r}, not of type {getattr(kind, '__name__', kind)}")
    return value


def _fits(found: Tensor, expected: Tensor) -> bool:
    """Whether a stored tensor can be the network's: floating-point types may differ."""
    both_real = found.is_floating_point() and expected.is_floating_point()
    return found.shape == expected.shape and (both_real or found.dtype == expected.dtype)


def _line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
