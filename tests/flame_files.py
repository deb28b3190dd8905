"""Files of FLAME's structure with synthetic numbers, in the formats of its publishers' tools."""

from __future__ import annotations

import pickle
import struct
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from avface.head import load_head
from avface.head.model import HeadModel

ROOT = 2**32 - 1


@contextmanager
def chumpy():
    """A module chumpy.ch with a class Ch, for as long as something is pickled."""
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, values):
            self.x, self._dirty_vars = values, set()

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = package.ch = Ch
    sys.modules |= {"chumpy": package, "chumpy.ch": module}
    try:
        yield Ch
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2's strings and with Python 2's module names."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    def save_text(self, value):
        self.save_bytes(value.encode("latin-1"))

    def save_type(self, value):
        if value.__module__ == "scipy.sparse._csc":
            self.write(b"cscipy.sparse.csc\ncsc_matrix\n")
            self.memoize(value)
        else:
            self.save_global(value)

    dispatch[bytes], dispatch[str], dispatch[type] = save_bytes, save_text, save_type


def random_fields(vertices: int = 60, seed: int = 0) -> dict[str, Any]:
    """The fields of FLAME's file, all but f random; 5023 vertices are FLAME's own number."""
    rng = np.random.default_rng(seed)
    regressor = rng.dirichlet(np.full(vertices, 0.05), 5)
    return {
        "v_template": rng.normal(0, 0.08, (vertices, 3)),
        "f": rng.permuted(np.tile(np.arange(vertices), (2 * vertices - 70, 1)), axis=1)[:, :3].astype(
            np.uint32
        ),
        "shapedirs": rng.normal(0, 0.001, (vertices, 3, 400)),
        "posedirs": rng.normal(0, 0.003, (vertices, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(np.where(regressor > 1e-6, regressor, 0)),
        "J": rng.normal(0, 0.05, (5, 3)),
        "kintree_table": np.array([[ROOT, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "weights": rng.dirichlet(np.full(5, 0.3), vertices),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_pickle(path: Path, fields: dict[str, Any], wrapped: tuple[str, ...] = ("shapedirs",)) -> Path:
    """Write fields as Python 2 did, some of them as chumpy's objects."""
    with chumpy() as wrap, path.open("wb") as file:
        given = {key: wrap(value) if key in wrapped else value for key, value in fields.items()}
        Python2Pickler(file, 2).dump(given)
    return path


def write_npz(path: Path, fields: dict[str, Any]) -> Path:
    """Write fields as arrays."""
    dense = {k: v.toarray() if scipy.sparse.issparse(v) else np.asarray(v) for k, v in fields.items()}
    np.savez(path, **dense)
    return path


def open_head_fields(jaw: bool = True) -> tuple[dict[str, Any], HeadModel]:
    """The open head in FLAME's form, and the head itself: 99 shapes, its units as expression components.

    A component is a third of its unit, so that 3 standard deviations are the whole unit. With a jaw, the vertices that
    jawOpen moves hang on a joint between the ears.
    """
    head = load_head("open")
    template = head.template.double().numpy()
    count = len(template)
    directions = np.zeros((count, 3, 400))
    directions[..., :99] = head.shape_basis[1:].double().numpy().transpose(1, 2, 0)
    directions[..., 300 : 300 + head.num_expression] = (
        head.expression_basis.double().numpy().transpose(1, 2, 0) / 3
    )
    weights = np.zeros((count, 5))
    weights[:, [0, 1, 3, 4]] = head.skin_weights.double().numpy()
    regressor = np.zeros((5, count))
    regressor[[1, 3, 4]] = head.joint_regressor.double().numpy()
    ears = np.flatnonzero(head.regions["ears"])
    regressor[2, ears] = 1 / len(ears)
    regressor[0] = regressor[1]
    if jaw:
        opening = head.expression_basis[head.expression_names.index("jawOpen")].norm(dim=1).double().numpy()
        share = np.clip(opening / np.quantile(opening, 0.99), 0, 1)
        weights[:, 2] = share * weights[:, 1]  # from the neck, on which all of the face hangs
        weights[:, 1] -= weights[:, 2]
    fields = {
        "v_template": template,
        "f": head.faces.numpy().astype(np.uint32),
        "shapedirs": directions,
        "posedirs": np.zeros((count, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "J": regressor @ template,
        "kintree_table": np.array([[ROOT, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "weights": weights,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    return fields, head
