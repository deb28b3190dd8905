"""Made-up frames and small networks for the tests of `avface.networks`."""

import torch

from avface.head import load_head
from avface.networks.audio import AudioConfig
from avface.networks.coarse.codes import OPEN_CODE, CodeConfig
from avface.networks.coarse.encoders import CoarseConfig, ExpressionConfig
from avface.networks.coarse.model import CoarseNetworks, NetworkConfig
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.frames import FaceCrop, Frames
from avface.networks.landmark_correction import LandmarkConfig, LandmarkNetwork, Layout
from avface.speech.acoustic import AcousticConfig, AcousticModel
from avface.speech.readout import ReadoutConfig, SpeechReadout

SMALL_LANDMARKS = LandmarkConfig(
    side=24, channels=(4, 4, 4), reduced=2, hidden=8, point_components=3, error_components=5
)


def some_frames(clips=2, count=16, seed=0, **changes):
    """Frames in which everything that a landmarks encoder may look at is random."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    box = torch.cat([600 + 100 * uniform(clips, count, 2), 300 + 20 * uniform(clips, count, 1)], -1)
    values = {
        "crop": FaceCrop.of(box, 1500.0, (640.0, 360.0)),
        "seen": torch.ones(clips, count, dtype=torch.bool),
        "heard": torch.ones(clips, count, dtype=torch.bool),
        "landmarks": uniform(clips, count, 478, 2) - 0.5,
        "confidence": uniform(clips, count),
        "visibility": uniform(clips, count, 478),
        "depth": uniform(clips, count, 478),
        "speech": uniform(clips, count, 16, 29) - 0.5,
    }
    return Frames(**{**values, **changes})


def small_config(code=OPEN_CODE, video=None, window=16, head="open"):
    """The networks with a few narrow layers."""
    video = video or LandmarksConfig("landmarks", "contours", hidden=(24,))
    return NetworkConfig(
        head,
        code,
        CoarseConfig(video, 21, TemporalConfig(window, 24, 1, 4, 32, (32,))),
        ExpressionConfig(video, AudioConfig(), 16, TemporalConfig(window, 32, 1, 4, 32, (32,))),
    )


def landmark_networks():
    """A config for the open head with tracked landmarks as input."""
    return NetworkConfig(
        "open",
        CodeConfig(),
        CoarseConfig(LandmarksConfig(), 192, TemporalConfig()),
        ExpressionConfig(LandmarksConfig(), temporal=TemporalConfig(width=128)),
    )


def small_networks(seed=0, **choices):
    """Networks whose answers differ from frame to frame as they would after training, in evaluation mode."""
    torch.manual_seed(seed)
    networks = CoarseNetworks(small_config(**choices))
    for branch in (networks.coarse, networks.expression):
        torch.nn.init.normal_(branch.temporal.projection[-1].weight, std=0.2)
        torch.nn.init.normal_(branch.temporal.projection[-1].bias, std=0.2)
        torch.nn.init.normal_(branch.temporal.positions)
        torch.nn.init.normal_(branch.unseen)
    torch.nn.init.normal_(networks.expression.unheard)
    return networks.eval()


def mean_points():
    """The landmarks (478, 3) of the mean head, metres."""
    head = load_head("open")
    return head.embedding("mediapipe478").on(head.template.numpy())


def small_landmark_network(seed=0):
    """A narrow landmark network with random principal components, in evaluation mode."""
    torch.manual_seed(seed)
    network = LandmarkNetwork(SMALL_LANDMARKS, Layout.of(mean_points(), SMALL_LANDMARKS.side)).eval()
    for value in (network.error_basis, network.points_basis, network.last.weight):
        torch.nn.init.normal_(value, std=0.1)
    return network


def small_acoustic_model(seed=0):
    """A narrow acoustic model, in evaluation mode."""
    torch.manual_seed(seed)
    return AcousticModel(AcousticConfig(8, (1, 2), 3)).eval()


def small_readout(seed=0):
    """A narrow speech readout, in evaluation mode."""
    torch.manual_seed(seed)
    return SpeechReadout(ReadoutConfig(channels=8, dilations=(1,), opening_taps=3)).eval()
