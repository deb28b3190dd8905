"""The recipes that are stored with the shipped weights can be read by the code that trains."""

import json

import pytest
from safetensors import safe_open

from avface.files.weight_file import config_from_plain
from avface.networks.coarse.model import pretrained_coarse_networks
from avface.networks.detail.network import pretrained_detail
from avface.networks.landmark_correction import pretrained_landmark_network
from avface.networks.lips.network import pretrained_lips
from avface.speech.acoustic import pretrained_acoustic_model
from avface.speech.readout import pretrained_readout
from avface.training.acoustic.train import AcousticRecipe
from avface.training.coarse import recipes
from avface.training.coarse.train import recipe_of
from avface.training.detail.train import DetailRecipe
from avface.training.hearing.train import HearingRecipe
from avface.training.landmarks.train import LandmarkRecipe
from avface.training.landmarks.views import LandmarkViewsConfig
from avface.training.lips.train import LipsRecipe

STARTED_LANDMARKS = LandmarkRecipe(views=LandmarkViewsConfig(people=400), steps=5000, learning_rate=5e-4)
"""The recipe with which weights go on from those of the head before (scripts/rebuild_assets.py)."""


@pytest.mark.parametrize(
    ("pretrained", "recipe"),
    [
        (pretrained_lips, LipsRecipe()),
        (pretrained_detail, DetailRecipe()),
        (pretrained_landmark_network, STARTED_LANDMARKS),
        (pretrained_acoustic_model, AcousticRecipe()),
        (pretrained_readout, HearingRecipe()),
    ],
)
def test_shipped_weights_have_their_recipe(pretrained, recipe):
    with safe_open(pretrained.path, "pt") as file:
        stored = json.loads(file.metadata()["recipe"])
    assert config_from_plain(type(recipe), stored) == recipe


def test_the_shipped_coarse_weights_have_the_default_recipe_fine_tuned_with_occlusions():
    recipe = recipe_of(pretrained_coarse_networks.path)
    expected = recipes.occlusion(recipes.default())
    assert recipe.network == expected.network and recipe.losses == expected.losses
    assert (recipe.name, recipe.occlusion, recipe.simulation) == (
        "default+occlusion",
        expected.occlusion,
        expected.simulation,
    )
