"""Configs of the networks refuse values that can't work, in one line with field and value."""

import pytest

from avface.errors import AvfaceError
from avface.networks.audio import AudioConfig
from avface.networks.coarse.codes import CodeConfig
from avface.networks.coarse.encoders import CoarseConfig, ExpressionConfig
from avface.networks.coarse.model import NetworkConfig
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.networks.detail.losses import DetailWeights
from avface.networks.detail.network import DetailConfig
from avface.networks.landmark_correction import LandmarkConfig
from avface.networks.lips.network import LipsConfig
from avface.speech.acoustic import AcousticConfig


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (AudioConfig, {"speech": "mfcc"}, "speech='mfcc' must be one of moonshine, own, wav2vec2, mel"),
        (AudioConfig, {"width": 0}, "width=0"),
        (ResNetConfig, {"hidden": (1024, 0)}, r"hidden=\(1024, 0\)"),
        (LandmarksConfig, {"hidden": ()}, r"hidden=\(\)"),
        (LandmarksConfig, {"hidden": (8, -1)}, r"hidden=\(8, -1\)"),
        (LandmarksConfig, {"points": "lips"}, "points='lips' must be all or contours"),
        (TemporalConfig, {"window": 0}, "window=0"),
        (TemporalConfig, {"heads": 0}, "heads=0"),
        (TemporalConfig, {"width": 0}, "width=0"),
        (TemporalConfig, {"width": 183}, "width=183 must be a multiple of heads=4"),
        (TemporalConfig, {"layers": 0}, "layers=0"),
        (TemporalConfig, {"feed_forward": 0}, "feed_forward=0"),
        (TemporalConfig, {"projection": (256, 0)}, r"projection=\(256, 0\)"),
        (CoarseConfig, {"embedding": 0}, "embedding=0"),
        (ExpressionConfig, {"feature": 0}, "feature=0"),
        (ExpressionConfig, {"audio_dropout": -0.1}, "audio_dropout=-0.1"),
        (ExpressionConfig, {"audio_dropout": float("nan")}, "audio_dropout=nan"),
        (ExpressionConfig, {"audio_dropout": 0.6, "video_dropout": 0.6}, "add up to 1 at most"),
        (CodeConfig, {"shape": 0}, "shape=0"),
        (CodeConfig, {"albedo": -1}, "albedo=-1"),
        (CodeConfig, {"expression": 0}, "expression=0"),
        (CodeConfig, {"camera": "fisheye"}, "camera='fisheye' must be one of perspective, weak_perspective"),
        (
            NetworkConfig,
            {"coarse": CoarseConfig(temporal=TemporalConfig(8))},
            "window=8 of one branch and 16",
        ),
        (LipsConfig, {"layers": 0}, "layers=0"),
        (LipsConfig, {"scale": float("nan")}, "scale=nan"),
        (LipsConfig, {"points": 393}, "points=393 must be at most vertices=392"),
        (DetailConfig, {"resolution": 100}, "resolution=100 must be a multiple of 32"),
        (DetailConfig, {"encoder": (8, 8, 8, 8)}, r"encoder=\(8, 8, 8, 8\) must be five"),
        (DetailConfig, {"decoder": (8, 8, 8, 8, 0)}, r"decoder=\(8, 8, 8, 8, 0\) must be five"),
        (DetailConfig, {"bound": 0.0}, "bound=0.0"),
        (DetailConfig, {"speech": 0}, "speech=0"),
        (DetailWeights, {"mrf": -1.0}, "mrf=-1.0 must be at least 0"),
        (DetailWeights, {"slope": float("nan")}, "slope=nan must be at least 0"),
        (LandmarkConfig, {"side": 0}, "side=0 must be a multiple of 8"),
        (LandmarkConfig, {"side": 90}, "side=90 must be a multiple of 8"),
        (LandmarkConfig, {"hidden": 0}, "hidden=0"),
        (LandmarkConfig, {"error_components": 0}, "error_components=0"),
        (LandmarkConfig, {"channels": (4, 4)}, r"channels=\(4, 4\) must be three"),
        (LandmarkConfig, {"channels": (4, 0, 4)}, r"channels=\(4, 0, 4\) must be three"),
        (LandmarkConfig, {"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        (LandmarkConfig, {"dropout": -0.1}, "dropout=-0.1"),
        (AcousticConfig, {"channels": 0}, "channels=0"),
        (AcousticConfig, {"dilations": (1, 0)}, r"dilations=\(1, 0\)"),
        (AcousticConfig, {"readout_taps": 4}, "readout_taps=4 must be odd"),
        (AcousticConfig, {"readout_taps": -1}, "readout_taps=-1 must be odd"),
    ],
)
def test_impossible_values_are_refused(config, values, message):
    with pytest.raises(AvfaceError, match=message) as caught:
        config(**values)
    assert "\n" not in str(caught.value)
