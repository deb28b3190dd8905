"""Made-up training data and small recipes for all trainings: no renderer, codec or speech synthesiser is needed."""

import numpy as np
import torch
from networks_frames import small_config

from avface.head.asset import load_head
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.detail.network import DetailConfig
from avface.networks.landmark_correction import LandmarkConfig
from avface.networks.lips.network import LipsConfig
from avface.speech.acoustic import BANDS, AcousticConfig
from avface.speech.phones import SILENCE, SYMBOLS
from avface.speech.readout import LAYERS, ReadoutConfig
from avface.tracking.aligned_crops import SIDE, aligned_crop, crop_matrix, to_crop
from avface.training.acoustic.corpus import Corpus, Utterance
from avface.training.acoustic.train import AcousticRecipe
from avface.training.coarse import recipes
from avface.training.coarse.face_points import FacePoints, project
from avface.training.coarse.tracked_takes import Performances, TrackedTakes
from avface.training.detail.frames import DetailFrames, DetailFramesConfig
from avface.training.detail.train import DetailRecipe
from avface.training.hearing.examples import Examples
from avface.training.hearing.train import HearingRecipe
from avface.training.landmarks.train import LandmarkRecipe, mean_points
from avface.training.landmarks.views import LandmarkViews, LandmarkViewsConfig
from avface.training.lips.performances import LipPerformances, LipPerformancesConfig
from avface.training.lips.train import LipsRecipe

SMALL_LIPS = LipsConfig(points=24, embedding=16, feature=8, hidden=16, layers=2, mapping=16)
SMALL_LANDMARKS = LandmarkConfig(
    side=24, channels=(6, 8, 8), reduced=4, hidden=16, point_components=2, error_components=2
)
DETAIL_FRAMES = DetailFramesConfig(
    people=1,
    frames=2,
    resolution=64,
    picture=96,
    min_scale=1.0,
    folded=0.0,
    occluded=1.0,
    exact=1.0,
    texture=64,
    seed=3,
)


def coarse_recipe(**changes):
    """Networks with a few narrow layers on simulated landmarks."""
    network = small_config(video=LandmarksConfig(points="contours", visibility=True, hidden=(24,)))
    simulation = recipes.Simulation(simulated_share=1.0, hours=0.002, seconds=3.6)
    values = {"steps": 6, "batch": 4, "warm_up": 2, "averaging": 0.5, "simulation": simulation}
    return recipes.Recipe("small", network, recipes.Supervision(), **{**values, **changes})


def coarse_performances():
    """Two talks of 80 frames in which the speech features say how far the jaw is open."""
    head = load_head()
    rng = np.random.default_rng(0)
    frames = 160
    expression = np.zeros((frames, head.num_expression), np.float32)
    opening = 0.25 + 0.25 * np.sin(np.arange(frames) * 0.7)
    expression[:, head.expression_names.index("jawOpen")] = opening
    joints = np.zeros((frames, head.num_joints, 3), np.float32)
    joints[:, 1:, 1] = rng.normal(0, 0.1, (frames, 1))
    speech = np.zeros((frames, 16, 29), np.float16)
    speech[..., 3] = (4 * opening - 1)[:, None]
    return Performances(
        first=torch.tensor([0, 80]),
        count=torch.tensor([80, 80]),
        expression=torch.from_numpy(expression),
        joints=torch.from_numpy(joints),
        turn=torch.from_numpy(rng.normal(0, 0.05, (frames, 3)).astype(np.float32)),
        shift=torch.zeros(frames, 3),
        speech=torch.from_numpy(speech),
        frame_rate=25.0,
    )


def tracked_takes(count=40, takes=2):
    """Takes of a head that opens its mouth, tracked without error."""
    head = load_head()
    generator = torch.Generator().manual_seed(2)
    frames = count * takes
    expression = torch.zeros(frames, head.num_expression)
    opening = 0.25 + 0.25 * torch.sin(torch.arange(frames) * 0.7)
    expression[:, head.expression_names.index("jawOpen")] = opening
    shape = 0.5 * torch.randn(takes, head.num_shape, generator=generator)
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    translation = torch.tensor([0.02, -0.01, 0.8]).expand(frames, 3)
    points = FacePoints.of(head)(shape, expression.unflatten(0, (takes, count)), None).flatten(0, 1)
    centre = torch.tensor([127.5, 127.5])
    pixels = project(points, rotation, translation, torch.full((frames,), 300.0), centre.expand(frames, 2))
    speech = torch.zeros(frames, 16, 29, dtype=torch.float16)
    speech[..., 3] = (4 * opening - 1)[:, None]
    return TrackedTakes(
        first=torch.arange(takes) * count,
        count=torch.full((takes,), count),
        tracked=pixels,
        confidence=torch.ones(frames),
        visible=torch.ones(frames, 478, dtype=torch.bool),
        box=torch.cat([pixels.mean(1), torch.full((frames, 1), 110.0)], -1),
        speech=speech,
        expression=expression,
        joints=torch.zeros(frames, head.num_joints, 3),
        rotation=rotation,
        translation=translation,
        shape=shape,
        focal=torch.full((takes,), 300.0),
        centre=centre.expand(takes, 2),
        frame_rate=25.0,
        names=("one", "other"),
    )


def lips_recipe(**changes):
    """A network of two narrow layers."""
    values = {
        "steps": 60,
        "batch": 6,
        "learning_rate": 2e-3,
        "warm_up": 5,
        "averaging": 0.8,
        "render_frames": 1,
        "render_size": 32,
        "pretraining_steps": 4,
        "pretraining_batch": 16,
    }
    performances = LipPerformancesConfig(hours=0.001)
    return LipsRecipe(network=SMALL_LIPS, performances=performances, **{**values, **changes})


def lip_performances(clips=6, frames=30):
    """Talks whose speech features say plainly whether lips are rounded (u) or pressed (p)."""
    head = load_head()
    rng = np.random.default_rng(0)
    vocabulary = ("", "p", "u")
    symbol, start, speech = [], [], np.zeros((clips, frames, 16, 29), np.float16)
    times = np.arange(frames)[:, None] / 25 + 0.02 * (np.arange(16) - 8)
    for clip in range(clips):
        order = rng.permutation([1, 2, 1, 2])
        begins = np.array([0.1, 0.4, 0.7, 1.0])
        symbol += [0, *order]
        start += [0.0, *begins]
        spoken = np.array([0, *order])[np.searchsorted(begins, times, side="right")]
        speech[clip] = np.eye(29)[spoken] * 3
    return LipPerformances(
        first=torch.arange(clips) * frames,
        count=torch.full((clips,), frames),
        expression=torch.zeros(clips * frames, head.num_expression, dtype=torch.float16),
        speech=torch.from_numpy(speech).flatten(0, 1),
        activity=torch.ones(clips * frames),
        phoneme_first=torch.arange(clips) * 5,
        phoneme_count=torch.full((clips,), 5),
        symbol=torch.tensor(symbol),
        start=torch.tensor(start),
        kind=torch.zeros(clips, dtype=torch.int64),
        vocabulary=vocabulary,
        frame_rate=25.0,
    )


def detail_recipe(**changes):
    """A network of few channels on a window of 64 texels."""
    network = DetailConfig(resolution=64, encoder=(8, 8, 8, 8, 8), decoder=(8, 8, 8, 8, 4), image=4, out=4)
    values = {"steps": 4, "batch": 2, "crop": 32, "bfloat16": False}
    return DetailRecipe(network=network, frames=DETAIL_FRAMES, **{**values, **changes})


def detail_frames(count=4, people=(0, 8)):
    """Frames of nobody: waves of skin, and their shading."""
    rng = torch.Generator().manual_seed(0)
    size = 64
    steps = torch.arange(size) / size
    phase = 6 * torch.rand(count, 1, 1, generator=rng)
    waves = torch.sin(40 * steps[:, None] + phase).expand(count, size, size)
    light = 0.5 + 0.3 * torch.cos(40 * steps[:, None] + phase).expand(count, size, size)
    normals = torch.zeros(count, 3, size, size, dtype=torch.int8)
    normals[:, 2] = 127
    return DetailFrames(
        image=(255 * light)[:, None].expand(-1, 3, -1, -1).byte(),
        normals=normals,
        visibility=torch.full((count, size, size), 255, dtype=torch.uint8),
        occluded=torch.zeros(count, size, size, dtype=torch.bool),
        displacement=(200 * waves).to(torch.int16),
        speech=torch.zeros(count, 16, 29, dtype=torch.float16),
        person=torch.tensor([people[k % len(people)] for k in range(count)], dtype=torch.int32),
        frame=torch.arange(count, dtype=torch.int32),
    )


def landmark_recipe(**changes):
    """A network of few channels."""
    values = {"steps": 10, "batch": 24, "averaging": 0.9, "warm_up": 4, "learning_rate": 5e-3}
    views = LandmarkViewsConfig(people=50)
    return LandmarkRecipe(network=SMALL_LANDMARKS, views=views, **{**values, **changes})


def landmark_views(people, each=4, seed=0):
    """Faces of dark spots at true landmarks; the tracker errs in two components, drawn for each view."""
    rng = np.random.default_rng(seed)
    rest = mean_points()[:, :2] * [1000, -1000] + [96, 96]
    components = np.stack([rest - rest.mean(0), (rest - rest.mean(0)) * [1, -1]]) / 100
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    pictures, tracked, true, person = [], [], [], []
    for number in range(people * each):
        image = np.full((SIDE, SIDE), 200.0)
        for place in rest[[33, 263, 1, 61, 291, 152, 10]]:
            image -= 150 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 40)
        image = np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
        found = rest + np.tensordot(rng.normal(0, 6, 2), components, 1)
        matrix = crop_matrix(found)
        pictures.append(aligned_crop(image, matrix))
        tracked.append(to_crop(matrix, found))
        true.append(to_crop(matrix, rest))
        person.append(number // each)
    return LandmarkViews(
        np.stack(pictures), np.stack(tracked), np.stack(true), np.array(person), np.zeros(len(person), bool)
    )


def acoustic_recipe(**changes):
    """A network of one block."""
    values = {
        "hours": 0.001,
        "recorded_hours": 0.0,
        "untimed_hours": 0.0,
        "steps": 6,
        "batch": 2,
        "seconds": 2.0,
        "warm_up": 2,
        "averaging": 0.5,
        "model": AcousticConfig(channels=16, dilations=(1,)),
    }
    return AcousticRecipe(**{**values, **changes})


def acoustic_corpus(seed, backgrounds):
    """Utterances of random phones with a spectrum each, and noise."""
    rng = np.random.default_rng(seed)
    spectra = 2 * np.random.default_rng(9).normal(size=(len(SYMBOLS), BANDS)) - 5
    utterances = []
    for _ in range(4):
        phones = np.repeat(rng.integers(0, len(SYMBOLS), 25), 8)
        spoken = spectra[phones] + 0.3 * rng.normal(size=(len(phones), BANDS))
        utterances.append(Utterance(spoken.astype(np.float16), phones.astype(np.int8)))
    noises = tuple((rng.normal(size=(150, BANDS)) - 8).astype(np.float16) for _ in range(backgrounds))
    return Corpus(tuple(utterances), noises, noises)


def hearing_recipe(**changes):
    """A readout of one block for states of 12 numbers."""
    values = {
        "steps": 6,
        "batch": 3,
        "warm_up": 2,
        "averaging": 0.5,
        "model": ReadoutConfig(states=12, channels=16, dilations=(1,)),
    }
    return HearingRecipe(**{**values, **changes})


def hearing_examples(count=8, rows=60):
    """Examples whose states hold what was said; the last quarter has no voice."""
    rng = np.random.default_rng(5)
    patterns = np.random.default_rng(6).normal(size=(len(SYMBOLS), len(LAYERS), 12))
    phones = np.repeat(rng.integers(0, len(SYMBOLS), (count, rows // 5)), 5, 1)
    spoken = np.arange(count) < count - count // 4
    phones[~spoken] = SILENCE
    states = patterns[phones] + 0.1 * rng.normal(size=(count, rows, len(LAYERS), 12))
    opening = (phones / len(SYMBOLS)).astype(np.float32)
    return Examples(
        torch.from_numpy(states).half(),
        torch.from_numpy(phones),
        torch.from_numpy(opening),
        torch.from_numpy(opening < 0.1),
        torch.from_numpy(1 - opening),
        torch.from_numpy(spoken),
    )
