"""Reader of pickled arrays that executes nothing of the pickle.

FLAME comes as a Python 2 pickle with arrays of numpy, scipy and chumpy, its landmarks as pickles with tensors of torch.
A pickle is a program that may call any function by its name. Here the few names that such files need are mapped to
placeholder classes of this module, which only store their arguments; any other name is refused before it is resolved.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F64
from avface.errors import AvfaceError

LARGEST_FILE = 1 << 30
"""Bytes. FLAME's files have 50 to 100 MB."""

_NUMBERS = {
    "f2": "f2", "f4": "f4", "f8": "f8", "b1": "b1",
    **{f"{kind}{size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}  # fmt: skip
"""Types of numbers that arrays may have."""


class _Refused(Exception):
    """The name of what a pickle must not have."""


class _Dtype:
    """numpy.dtype(code, align, copy) and its state (version, byte order, ...)."""

    def __init__(self, code: object, *rest: object) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype | None:
        """The type of number; None for an array of objects."""
        if isinstance(self.code, str) and self.code.startswith("O"):
            return None
        if self.code not in _NUMBERS or self.order not in ("<", ">", "|", "="):
            raise _Refused(f"a numpy array of {self.code!r}")
        return np.dtype(self.order + _NUMBERS[str(self.code)])


class _Array:
    """What numpy's _reconstruct makes; its state is (version, shape, dtype, Fortran order, bytes or list)."""

    values: npt.NDArray[Any] | list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        kind = dtype.numpy()
        if kind is None:
            if not isinstance(data, list) or len(data) != int(np.prod(shape, dtype=object)):
                raise ValueError("an array of objects without its objects")
            self.values = data
            return
        data = data.encode("latin-1") if isinstance(data, str) else data
        self.values = _numbers(data, kind, shape, "F" if fortran else "C")


def _numbers(data: bytes | bytearray, kind: np.dtype, shape: Any, order: Any) -> npt.NDArray[Any]:
    """Numbers in native byte order; ValueError unless their count agrees with the shape."""
    flat = np.frombuffer(data, kind)
    return flat.astype(kind.newbyteorder("=")).reshape(shape, order=order)


class _Chumpy:
    """chumpy.ch.Ch: its numbers are its state's `x`."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Sparse:
    """scipy's matrices by columns: the state has data, indices, indptr and the shape."""

    by_columns = True
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def dense(self) -> F64:
        """The whole matrix."""
        data, indices, starts = (_plain(self.state[key]) for key in ("data", "indices", "indptr"))
        rows, columns = (int(n) for n in self.state.get("_shape", self.state.get("shape")))
        if rows < 0 or columns < 0 or rows * columns > LARGEST_FILE // 8:
            raise ValueError(f"a sparse matrix of {rows} x {columns}")
        outer, inner = (columns, rows) if self.by_columns else (rows, columns)
        counts = np.diff(starts)
        if len(starts) != outer + 1 or (counts < 0).any() or counts.sum() != len(data) or starts[0] != 0:
            raise ValueError("a sparse matrix whose parts don't fit")
        if len(indices) != len(data) or (indices < 0).any() or (indices >= inner).any():
            raise ValueError("a sparse matrix whose parts don't fit")
        matrix = np.zeros((outer, inner))
        np.add.at(matrix, (np.repeat(np.arange(outer), counts), indices), data)
        return matrix.T if self.by_columns else matrix


class _SparseByRows(_Sparse):
    """scipy's matrices by rows."""

    by_columns = False


class _Object:
    """Python's object, as what old pickles build other objects from."""


def _array(kind: object, *rest: object) -> _Array:
    """numpy's _reconstruct(ndarray, shape, code)."""
    if kind is not _Array:
        raise _Refused("an array of another kind")
    return _Array()


def _from_buffer(data: bytes | bytearray, dtype: _Dtype, shape: object, order: object) -> npt.NDArray[Any]:
    """numpy's _frombuffer, from protocol 5 on."""
    kind = dtype.numpy()
    if kind is None:
        raise _Refused("a numpy array of objects in a buffer")
    return _numbers(data, kind, shape, order)


def _no_bytes() -> bytes:
    """Python 3's way to write empty bytes for Python 2."""
    return b""


def _number(dtype: _Dtype, data: Any = None) -> Any:
    """numpy's scalar(dtype, bytes)."""
    kind = dtype.numpy()
    if kind is None:
        raise _Refused("a numpy scalar of an object")
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, kind)[0].item()


def _rebuilt(kind: Any, base: object, state: object = None) -> Any:
    """copy_reg's _reconstructor(class, object, None)."""
    if kind not in (_Chumpy, _Sparse, _SparseByRows) or base is not _Object:
        raise _Refused(f"an object of {getattr(kind, '__name__', kind)!r} rebuilt")
    return kind()


def _encoded(text: str, encoding: str) -> bytes:
    """Python 3's way to write bytes for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text in {encoding!r}")
    return text.encode("latin-1")


def _storage(data: bytes) -> npt.NDArray[Any]:
    """torch.storage's _load_from_bytes: a stretch of numbers in torch's own file format, which is read as weights."""
    import torch

    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    numbers = torch.empty(0, dtype=storage.dtype).set_(storage)
    return numbers.numpy()


def _tensor(
    storage: npt.NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: object
) -> npt.NDArray[Any]:
    """torch._utils's _rebuild_tensor and _rebuild_tensor_v2."""
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
        raise ValueError("a tensor without its numbers")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(storage)):
        raise ValueError("a tensor beyond its numbers")
    if int(np.prod(shape, dtype=object)) > len(storage):
        raise ValueError("a tensor with more entries than numbers")
    index = np.full((), offset)
    for size, stride in zip(shape, strides, strict=True):
        index = index[..., None] + np.arange(size) * stride
    return storage[index]


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What the names of a pickle stand for."""
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("chumpy.ch", "Ch"): _Chumpy,
        ("copy_reg", "_reconstructor"): _rebuilt,
        ("copyreg", "_reconstructor"): _rebuilt,
        ("__builtin__", "object"): _Object,
        ("builtins", "object"): _Object,
        ("__builtin__", "set"): set,
        ("builtins", "set"): set,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encoded,
        ("__builtin__", "bytes"): _no_bytes,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = _array
        allowed[f"{core}.multiarray", "scalar"] = _number
        allowed[f"{core}.numeric", "_frombuffer"] = _from_buffer
    for layout, kind in (("csc", _Sparse), ("csr", _SparseByRows)):
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}"):
            allowed[module, f"{layout}_matrix"] = kind
            allowed[module, f"{layout}_array"] = kind
    return allowed


class _Reader(pickle.Unpickler):
    """An unpickler restricted to the names of `_allowed`."""

    def __init__(self, file: io.BufferedIOBase | io.BytesIO) -> None:
        super().__init__(file, encoding="latin-1")
        self._names = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that a name stands for here."""
        try:
            return self._names[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, identity: Any) -> Any:
        """Refuse what lies outside the file."""
        raise _Refused("something outside the file")


def read_pickle(path: Path) -> dict[str, Any]:
    """Read the dictionary that a pickle file holds: numbers as arrays, everything else as it is.

    Raises:
        AvfaceError: if the file is missing, damaged, no dictionary, or names anything but numbers; the message says
            what. Nothing that the file names is imported or called.
    """
    return _read(path, _bytes_of(path))


def read_pickled_npy(path: Path) -> dict[str, Any]:
    """Read the dictionary that numpy.save has pickled into a .npy file.

    Raises:
        AvfaceError: as `read_pickle`.
    """
    data = _bytes_of(path)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        _, _, kind = read(stream)
    except (ValueError, KeyError, EOFError):
        raise AvfaceError(f"{path}: not a .npy file; download it again") from None
    if not kind.hasobject:
        raise AvfaceError(
            f"{path}: an array of numbers, not a dictionary of landmarks; choose the right file"
        )
    return _read(path, data[stream.tell() :])


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an .npz file, none of which may be pickled.

    Raises:
        AvfaceError: if the file is missing, damaged or has other things than arrays of numbers and text.
    """
    _bytes_of(path, 0)
    name = ""
    try:
        arrays = {}
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise AvfaceError(
                f"{path}: {name or 'its content'} is pickled, which an .npz must not be; use the .pkl file"
            ) from None
        raise AvfaceError(f"{path}: truncated or damaged ({_line(error)}); download it again") from None
    except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
        raise AvfaceError(f"{path}: truncated or damaged ({_line(error)}); download it again") from None
    return arrays


def is_archive(path: Path) -> bool:
    """Whether a file is an .npz, whatever its name is.

    Raises:
        AvfaceError: if there is no such file.
    """
    return _bytes_of(path, 2) == b"PK"


def _bytes_of(path: Path, most: int = -1) -> bytes:
    """The file's first bytes, all by default."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AvfaceError(f"{path}: larger than any file of FLAME; choose the right file")
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except OSError as error:
        raise AvfaceError(f"{path}: can't be read ({error.strerror}); choose a file") from None


def _read(path: Path, data: bytes) -> dict[str, Any]:
    try:
        whole = _plain(_Reader(io.BytesIO(data)).load())
        if isinstance(whole, list) and len(whole) == 1:  # numpy.save wraps the dictionary into an array
            whole = _plain(whole[0])
        if not isinstance(whole, dict):
            raise AvfaceError(f"{path}: a pickle, but no dictionary of arrays; choose the right file")
        return {str(key): _plain(value) for key, value in whole.items()}
    except _Refused as refused:
        raise AvfaceError(
            f"{path}: refused, it contains {refused}, which no file of numbers needs; nothing of it was run. "
            "Download it again from its publisher"
        ) from None
    except AvfaceError:
        raise
    except Exception as error:  # whatever a damaged or hostile pickle makes the unpickler stumble over
        raise AvfaceError(
            f"{path}: truncated, damaged or not a pickle ({_line(error)}); download it again"
        ) from None


def _plain(value: Any) -> Any:
    """Arrays instead of what stands for them."""
    if isinstance(value, _Array):
        if value.values is None:
            raise ValueError("an array without numbers")
        return value.values
    if isinstance(value, _Chumpy):
        return _plain(value.state["x"])
    if isinstance(value, _Sparse):
        return value.dense()
    return value


def _line(error: Exception) -> str:
    """The error in one short line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
