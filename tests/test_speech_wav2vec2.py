import sys

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.speech import speech_features, wav2vec2


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    folder = tmp_path_factory.mktemp("wav2vec2")
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    return folder


def test_hidden_states_around_each_frame(weights):
    sound = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    times = np.arange(50) / 25
    heard = speech_features(sound, times, "wav2vec2", weights=weights)

    assert heard.values.shape == (50, 16, 32) and heard.kind == "wav2vec2"
    assert np.isfinite(heard.values).all() and heard.values[25].std() > 0


def test_the_row_of_a_frame_is_centred_on_it(weights):
    sound = torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    rows = wav2vec2.wav2vec2_rows(sound, weights).numpy()
    values = speech_features(sound.numpy(), np.array([0.5]), "wav2vec2", weights=weights).values[0]

    place = (0.5 - wav2vec2.FIRST_ROW) / wav2vec2.ROW_SECONDS
    below, share = int(place), place - int(place)
    np.testing.assert_allclose(values[8], (1 - share) * rows[below] + share * rows[below + 1], atol=1e-4)


def test_long_sound_has_as_many_rows_as_in_one_piece(weights, monkeypatch):
    sound = torch.randn(16_000 * 4, generator=torch.Generator().manual_seed(2))
    whole = wav2vec2.wav2vec2_rows(sound, weights)
    monkeypatch.setattr(wav2vec2, "_BLOCK", 60)
    pieces = wav2vec2.wav2vec2_rows(sound, weights)

    assert whole.shape == pieces.shape == (199, 32)


@pytest.mark.parametrize("samples", [1, 399, 400])
def test_the_shortest_sound_has_a_row(weights, samples):
    assert wav2vec2.wav2vec2_rows(torch.ones(samples), weights).shape == (1, 32)


def test_missing_weights_are_named_and_nothing_is_downloaded(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(AvfaceError, match=r"nowhere.*doesn't download"):
        speech_features(np.zeros(1600, np.float32), np.zeros(1), "wav2vec2", weights=tmp_path / "nowhere")


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AvfaceError, match=r"avface\[wav2vec2\]"):
        speech_features(np.zeros(1600, np.float32), np.zeros(1), "wav2vec2")
