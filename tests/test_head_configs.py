"""Settings of head builders that cannot work are refused by name and value."""

import re

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.embedding import EmbeddingConfig
from avface.head.model import UnitRange
from avface.head.open.config import OpenHeadConfig
from avface.head.open.eyes.eyeballs import EyesConfig
from avface.head.open.eyes.lids import LidsConfig
from avface.head.open.mouth.config import MouthConfig
from avface.head.skin.atlas import DetailAtlas


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (EmbeddingConfig, {"portraits": 0}, "portraits=0 must be 1 or more"),
        (EmbeddingConfig, {"size": 0}, "size=0 must be 1 or more"),
        (EmbeddingConfig, {"shape_sigma": -0.1}, "shape_sigma=-0.1 must be 0 or more"),
        (EmbeddingConfig, {"yaw": -0.1}, "yaw=-0.1 must be 0 or more"),
        (EmbeddingConfig, {"pitch": float("nan")}, "pitch=nan must be 0 or more"),
        (EmbeddingConfig, {"error_components": -1}, "error_components=-1 must be 0 or more"),
        (EmbeddingConfig, {"seed": -1}, "seed=-1 must be 0 or more"),
        (OpenHeadConfig, {"shape_components": 1}, "shape_components=1 must be 2 or more"),
        (OpenHeadConfig, {"samples": 158}, "samples=158 must be 159 or more for 100 shape components"),
        (OpenHeadConfig, {"seed": -1}, "seed=-1 must be 0 or more"),
        (OpenHeadConfig, {"local_sigma": -0.1}, "local_sigma=-0.1 must be 0 or more"),
        (OpenHeadConfig, {"asymmetry": 1.1}, "asymmetry=1.1 must be between 0 and 1"),
        (OpenHeadConfig, {"asymmetry": -0.1}, "asymmetry=-0.1 must be between 0 and 1"),
        (
            EyesConfig,
            {"pupil_radius": 0.006},
            "pupil_radius=0.006 must be above 0, below iris_radius=0.00585, which must be below radius=0.012",
        ),
        (
            EyesConfig,
            {"iris_radius": 0.013},
            "pupil_radius=0.0019 must be above 0, below iris_radius=0.013, which must be below radius=0.012",
        ),
        (EyesConfig, {"segments": 7}, "segments=7 must be even and 8 or more"),
        (EyesConfig, {"segments": 9}, "segments=9 must be even and 8 or more"),
        (EyesConfig, {"gap": 0.0}, "cornea=0.00025 must be 0 or more, gap=0.0 above 0"),
        (LidsConfig, {"meeting": 0.5}, "meeting=0.5 must be 0 or more and below 0.5"),
        (LidsConfig, {"people": 0}, "people=0 must be above 0"),
        (
            MouthConfig,
            {"corner_share": 0.01},
            "shares of the jaw's displacement must rise from the upper lip over the corners to the lower lip",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config, settings, message):
    with pytest.raises(AvfaceError, match=f"^{re.escape(message)}$"):
        config(**settings)


def test_an_atlas_of_one_texel_is_refused():
    with pytest.raises(AvfaceError, match=r"^resolution=1 must be 2 or more texels$"):
        DetailAtlas(load_head(), 1)


@pytest.mark.parametrize(
    ("low", "high", "sigma", "message"),
    [
        ([0, 0.6], [1, 0.5], [1, 1], "low must not exceed high"),
        ([0, 0], [1, 1], [1, 0], "sigma must be above 0"),
        ([0, 0], [1], [1, 1], "low, high and sigma must have equal lengths"),
    ],
)
def test_reversed_or_incomplete_ranges_of_units_are_refused(low, high, sigma, message):
    with pytest.raises(ValueError, match=message):
        UnitRange(np.array(low), np.array(high), np.array(sigma))
