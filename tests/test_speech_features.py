import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.speech import SYMBOLS, WINDOW, acoustic, features, speech_features
from avface.speech.acoustic import AcousticConfig, AcousticModel, load_acoustic_model, save_acoustic_model

RATE = 16_000


@pytest.fixture(scope="module")
def sound():
    """Five seconds of noise with a varying level and of chirps."""
    rng = np.random.default_rng(0)
    times = np.arange(5 * RATE) / RATE
    swell = np.sin(2 * np.pi * 2 * times) ** 2
    return (0.1 * swell * (rng.normal(size=len(times)) + np.sin(2 * np.pi * 300 * times**1.2))).astype(
        np.float32
    )


@pytest.fixture
def untrained(monkeypatch):
    """A small network with random weights in place of the shipped one."""
    torch.manual_seed(0)
    model = AcousticModel(AcousticConfig(channels=16, dilations=(1, 2))).eval()
    monkeypatch.setattr(features, "pretrained_acoustic_model", lambda device: model)
    return model


def video(seconds, rate=25.0):
    return np.arange(round(seconds * rate)) / rate


@pytest.mark.parametrize(("kind", "width"), [("moonshine", 29), ("own", 29), ("mel", 80)])
def test_a_window_for_every_frame(sound, kind, width):
    heard = speech_features(sound, video(5, 29.97), kind)

    assert heard.values.shape == (150, WINDOW, width) and len(heard) == 150
    assert heard.values.dtype == heard.speech_activity.dtype == heard.mouth_openness.dtype == np.float32
    assert heard.kind == kind and heard.heard
    assert np.isfinite(heard.values).all()
    for curve in (heard.speech_activity, heard.mouth_openness, heard.lip_closure, heard.loudness):
        assert curve.shape == (150,) and curve.min() >= 0 and curve.max() <= 1


def test_there_are_29_symbols_and_the_first_is_silence():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 29
    assert SYMBOLS[0] == "silence"


def test_at_25_frames_a_second_window_t_holds_rows_2t_minus_8_to_2t_plus_7(sound, untrained):
    rows = untrained.predict(torch.from_numpy(sound)).standardised.numpy()
    values = speech_features(sound, video(5), "own").values

    assert len(rows) == 250
    for frame in (4, 60, 120):
        np.testing.assert_allclose(values[frame], rows[2 * frame - 8 : 2 * frame + 8], atol=1e-4)
    for outside, inside in ((values[0, :8], values[0, 8]), (values[124, 10:], values[124, 9])):
        assert np.abs(outside).max() < 1e-5 < np.abs(inside).max()


def test_any_times_are_interpolated_between_rows(sound, untrained):
    rows = untrained.predict(torch.from_numpy(sound)).standardised.numpy()
    values = speech_features(sound, np.array([1.0, 1.013, 2.5]), "own").values

    np.testing.assert_allclose(values[1, 8], 0.35 * rows[50] + 0.65 * rows[51], atol=1e-4)
    np.testing.assert_allclose(values[1, 0], 0.35 * rows[42] + 0.65 * rows[43], atol=1e-4)


@pytest.mark.parametrize("kind", ["own", "mel"])
def test_a_click_is_in_the_middle_of_the_window_at_its_time(kind, untrained):
    sound = np.zeros(RATE, np.float32)
    sound[RATE // 2] = 0.9
    silence = speech_features(np.zeros(RATE, np.float32), np.array([0.5]), kind).values[0]
    values = speech_features(sound, np.array([0.5]), kind).values[0]

    changed = np.abs(values - silence).sum(1)
    changed -= changed.min()  # the clip's average has changed everywhere
    assert 6.5 < changed @ np.arange(WINDOW) / changed.sum() < 9


def test_windows_depend_on_the_sound_around_them_alone(untrained):
    """Given the loudness of the clip: on the receptive field of the network around the window."""
    rng = np.random.default_rng(1)
    spectra = torch.from_numpy(rng.normal(size=(1, 800, acoustic.BANDS + 1)).astype(np.float32))
    changed = spectra.clone()
    changed[:, 400:402] += 5
    difference = (untrained(spectra)[0] - untrained(changed)[0]).abs().sum(-1)[0].detach().numpy()

    touched = np.flatnonzero(difference)
    assert 200 - untrained.config.context <= touched.min() and touched.max() <= 200 + untrained.config.context
    assert difference.argmax() in (199, 200, 201)


def test_long_sound_is_processed_in_blocks_without_seams(sound, untrained, monkeypatch):
    whole = untrained.predict(torch.from_numpy(sound))
    monkeypatch.setattr(acoustic, "BLOCK_ROWS", 37)
    pieces = untrained.predict(torch.from_numpy(sound))

    torch.testing.assert_close(pieces.logits, whole.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pieces.openness, whole.openness, atol=1e-4, rtol=1e-4)


def test_mel_in_blocks_has_no_seams(sound, monkeypatch):
    whole = features.mel.mel_spectra(torch.from_numpy(sound))
    monkeypatch.setattr(features.mel, "_BLOCK", 41)

    torch.testing.assert_close(features.mel.mel_spectra(torch.from_numpy(sound)), whole)


def test_features_hardly_depend_on_the_level(sound):
    loud, soft = (speech_features(gain * sound, video(5)) for gain in (1.0, 0.05))

    np.testing.assert_allclose(loud.mouth_openness, soft.mouth_openness, atol=0.1)


def test_mel_is_wav2lips():
    """Against the steps of Wav2Lip's audio.py in numpy with an independent filter bank."""
    rng = np.random.default_rng(2)
    sound = (0.2 * rng.normal(size=RATE)).astype(np.float32)
    emphasised = np.append(sound[0], sound[1:] - 0.97 * sound[:-1]).astype(float)
    padded = np.pad(emphasised, 400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    magnitudes = np.stack(
        [np.abs(np.fft.rfft(hann * padded[at : at + 800])) for at in range(0, RATE + 1, 200)]
    )

    def to_mel(hertz):
        return np.where(
            hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
        )

    def to_hertz(mel):
        return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    corners = to_hertz(np.linspace(to_mel(55.0), to_mel(7600.0), 82))
    bins = np.arange(401) * 20.0
    filters = np.zeros((80, 401))
    for band in range(80):
        low, middle, high = corners[band : band + 3]
        filters[band] = np.interp(bins, [low, middle, high], [0, 2 / (high - low), 0])
    decibels = 20 * np.log10(np.maximum(1e-5, magnitudes @ filters.T)) - 20
    expected = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)

    values = speech_features(sound, np.array([0.5]), "mel").values[0]
    np.testing.assert_allclose(values, expected[32:48], atol=2e-3)


@pytest.mark.parametrize("kind", ["moonshine", "own", "mel", "wav2vec2"])
def test_without_a_sound_track_all_features_are_zero(kind):
    heard = speech_features(None, video(1), kind)

    assert not heard.heard
    assert heard.values.shape[:2] == (25, WINDOW)
    assert not heard.values.any() and not heard.speech_activity.any() and not heard.mouth_openness.any()
    assert not heard.lip_closure.any() and not heard.loudness.any()


@pytest.mark.parametrize("samples", [0, 1, 200, RATE])
def test_silence_of_any_length_gives_finite_features_without_speech(samples):
    heard = speech_features(np.zeros(samples, np.float32), video(1))

    assert heard.heard and np.isfinite(heard.values).all()
    assert heard.speech_activity.max() < 0.05
    assert heard.mouth_openness.max() < 0.2


def test_frames_outside_the_sound_have_no_features(sound):
    heard = speech_features(sound, np.array([-3.0, 2.0, 9.0]))

    assert not heard.values[[0, 2]].any() and heard.values[1].any()
    assert not heard.speech_activity[[0, 2]].any()


def test_hiss_is_not_speech():
    rng = np.random.default_rng(3)
    heard = speech_features((0.05 * rng.normal(size=6 * RATE)).astype(np.float32), video(6))

    assert heard.speech_activity.mean() < 0.05


@pytest.mark.parametrize(
    ("sound", "times", "kind", "error", "message"),
    [
        (np.zeros((2, 100), np.float32), np.zeros(1), "mel", ValueError, "one channel"),
        (np.full(100, np.nan, np.float32), np.zeros(1), "mel", AvfaceError, "finite numbers"),
        (np.zeros(100, np.float32), np.zeros((2, 2)), "mel", ValueError, r"\(T,\)"),
        (np.zeros(100, np.float32), np.array([np.nan]), "mel", ValueError, "finite"),
        (np.zeros(100, np.float32), np.zeros(1), "mfcc", ValueError, "'moonshine', 'own', 'wav2vec2', 'mel'"),
    ],
)
def test_wrong_input_is_named(sound, times, kind, error, message):
    with pytest.raises(error, match=message):
        speech_features(sound, times, kind)


def test_weights_come_back_as_saved(tmp_path, untrained, sound):
    save_acoustic_model(untrained, tmp_path / "small.safetensors", {"recipe": "{}"})
    again = load_acoustic_model(tmp_path / "small.safetensors")

    assert again.config == untrained.config
    torch.testing.assert_close(
        again.predict(torch.from_numpy(sound)).logits,
        untrained.predict(torch.from_numpy(sound)).logits,
        atol=2e-2,
        rtol=0,
    )


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(AvfaceError, match=r"gone\.safetensors: no such file"):
        load_acoustic_model(tmp_path / "gone.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nonsense")
    with pytest.raises(AvfaceError, match=r"damaged\.safetensors: not a readable weights file"):
        load_acoustic_model(damaged)


def test_the_shipped_weights_are_small():
    assert acoustic.pretrained_acoustic_model.path.stat().st_size < 10_000_000
