"""Plain physically based materials for the parts of a head."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from avface.arrays import U8
from avface.head.appearance import PART_COLOURS


@dataclass(frozen=True)
class Material:
    """A dielectric. The colour is that of heads without texture coordinates; others have a base-colour texture."""

    name: str
    """Name in the file."""
    colour: tuple[float, float, float]
    """Linear RGB, 0 to 1."""
    roughness: float
    """0 (specular) to 1 (diffuse)."""


def linear(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """Linear RGB of sRGB, both 0 to 1 (IEC 61966-2-1)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour
    )
    return red, green, blue


SKIN = Material("skin", linear(PART_COLOURS["skin"]), 0.55)

_BY_PART = (  # the first key contained in a part's name decides, so "iris" comes before "eye"
    ("pupil", Material("pupil", linear(PART_COLOURS["pupil"]), 0.1)),
    ("iris", Material("iris", linear(PART_COLOURS["iris"]), 0.15)),
    ("tear", Material("tears", linear(PART_COLOURS["line"]), 0.05)),
    ("eye", Material("sclera", linear(PART_COLOURS["eye"]), 0.2)),
    ("teeth", Material("teeth", linear(PART_COLOURS["teeth"]), 0.25)),
    ("gums", Material("gums", linear(PART_COLOURS["gums"]), 0.3)),
    ("tongue", Material("tongue", linear(PART_COLOURS["tongue"]), 0.4)),
    ("mouth", Material("mouth", linear(PART_COLOURS["mouth_cavity"]), 0.5)),
)


def part_material(part: str) -> Material:
    """The material of a part by its name ("left_iris", "upper_teeth", ...); skin by default."""
    return next((material for word, material in _BY_PART if word in part), SKIN)


def png(image: U8) -> npt.NDArray[np.uint8]:
    """The bytes (N,) of an image (H, W, 3), RGB, as a .png file."""
    _, packed = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return np.asarray(packed, np.uint8).ravel()
