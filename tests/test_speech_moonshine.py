import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.speech import moonshine, readout
from avface.speech.moonshine import (
    FIELD,
    FIRST_ROW,
    HOP,
    QUANTISED,
    ROW_SECONDS,
    SCALE,
    ZERO_POINT,
    MoonshineConfig,
    MoonshineEncoder,
    block_sound,
    encoded_blocks,
    load_moonshine,
    num_rows,
    pretrained_moonshine,
    save_moonshine,
    sound_block,
)

RATE = 16_000
SMALL = MoonshineConfig(width=8, layers=2, heads=2, rotated=2)


@pytest.fixture(scope="module")
def voice():
    """Seconds of espeak-ng's speech."""
    espeak = pytest.importorskip("avface.synthetic.performance.espeak")
    pytest.importorskip("espeakng_loader")
    text = "People hear more than they think: papa's mother bought a brown puppy. " * 5
    return torch.from_numpy(espeak.speak(text, "en-us").resampled(RATE).samples)


@pytest.mark.parametrize("samples", [1, 383, 384, 385, 5000, HOP * 640, HOP * 640 + 1, HOP * 1500 + 7])
def test_blocks_hold_every_row_once_at_its_place(samples):
    """The waveform itself is encoded: a row is the index of the first sample that it sees."""
    rows = []
    for number in range(-(-num_rows(samples) // moonshine.BLOCK_ROWS)):
        block = sound_block(number, samples)
        first = torch.arange(block.begin, block.end)[:: moonshine.HOP]
        rows.append(first[: (block.end - block.begin - FIELD) // HOP + 1][block.kept])
    at = (torch.cat(rows) + (FIELD - 1) / 2) / RATE

    assert len(at) == num_rows(samples) == max(1, -(-samples // HOP))
    torch.testing.assert_close(at, FIRST_ROW + ROW_SECONDS * torch.arange(len(at)), atol=1e-5, rtol=0)


def test_a_blocks_sound_has_silence_around_it_and_may_begin_late():
    sound = torch.arange(1.0, 20_001.0)
    block = sound_block(0, len(sound))
    whole = block_sound(sound, block)

    assert len(whole) == block.end - block.begin
    assert not whole[: -block.begin].any() and not whole[-block.begin + len(sound) :].any()
    torch.testing.assert_close(whole[-block.begin :][: len(sound)], sound)
    later = sound_block(1, None)
    long = torch.arange(1.0, 700_001.0)
    torch.testing.assert_close(
        block_sound(long, later), block_sound(long[later.begin - 5 :], later, later.begin - 5)
    )


def test_an_unknown_end_changes_nothing_where_the_sound_is_long_enough():
    assert sound_block(2, None) == sound_block(2, 10_000_000)


def test_a_click_is_heard_in_the_row_at_its_time():
    encoder = pretrained_moonshine()
    silence = torch.zeros(2 * RATE)
    silence += 1e-3 * torch.randn(len(silence), generator=torch.Generator().manual_seed(0))
    clicked = silence.clone()
    clicked[RATE] = 0.5
    one, other = (
        torch.cat([rows[0] for rows in encoded_blocks(encoder, each)]) for each in (silence, clicked)
    )
    change = (other - one).abs().sum(-1)

    assert FIRST_ROW + ROW_SECONDS * int(change.argmax()) == pytest.approx(1.0, abs=0.03)


def test_attention_depends_on_the_distance_of_rows_alone():
    rng = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 36, generator=rng)
    angles = torch.arange(50)[:, None] * 10_000.0 ** (-torch.arange(0, 32, 2) / 32)
    cosine, sine = angles.cos().repeat_interleave(2, -1), angles.sin().repeat_interleave(2, -1)
    queries, keys = (moonshine._rotated(one.expand(50, -1), cosine, sine) for one in (query, key))
    products = queries @ keys.T

    for distance in (0, 3, 17):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert products[0, 0] == pytest.approx(float(query[0] @ key[0]), abs=1e-4)


def test_seams_between_blocks_are_hardly_heard(voice, monkeypatch):
    whole = readout.pretrained_hearing().hear(voice)
    monkeypatch.setattr(moonshine, "BLOCK_ROWS", 300)
    pieces = readout.pretrained_hearing().hear(voice)

    assert len(voice) > 16 * RATE and len(pieces) == len(whole)
    assert np.corrcoef(whole.opening, pieces.opening)[0, 1] > 0.97
    np.testing.assert_allclose(pieces.opening[:600].mean(), whole.opening[:600].mean(), atol=0.02)


def test_what_is_heard_hardly_depends_on_the_level(voice):
    hearing = readout.pretrained_hearing()
    loud, soft = (hearing.hear(gain * voice[: 6 * RATE]) for gain in (1.0, 0.05))

    assert np.corrcoef(loud.opening, soft.opening)[0, 1] > 0.98
    assert float((loud.activity - soft.activity).abs().mean()) < 0.03


def test_a_voice_is_heard(voice):
    heard = readout.pretrained_hearing().hear(voice[: 10 * RATE])

    assert heard.activity.mean() > 0.7
    assert heard.opening.std() > 0.08 and heard.loudness.std() > 0.1
    assert heard.closure.max() > 0.5 and heard.closure.mean() < 0.4


def quantised_file(path, drop=()):
    """A small encoder and its file, with one weight quantised."""
    torch.manual_seed(0)
    encoder = MoonshineEncoder(SMALL).eval()
    tensors = dict(encoder.state_dict())
    name = "layers.0.expand.weight"
    levels = torch.randint(0, 256, tensors[name].shape, dtype=torch.uint8)
    scale, zero = torch.tensor(0.01), torch.tensor(120, dtype=torch.uint8)
    encoder.layers[0].expand.weight.data = (levels.float() - 120) * 0.01
    del tensors[name]
    tensors |= {name + QUANTISED: levels, name + SCALE: scale, name + ZERO_POINT: zero}
    save_moonshine(path, SMALL, {key: value for key, value in tensors.items() if key not in drop}, {})
    return encoder


def test_quantised_weights_come_back_as_numbers(tmp_path):
    encoder = quantised_file(tmp_path / "small.safetensors")
    again = load_moonshine(tmp_path / "small.safetensors")

    sound = torch.randn(1, 4000)
    torch.testing.assert_close(again(sound), encoder(sound))
    assert again.config == SMALL and not any(one.requires_grad for one in again.parameters())


def test_a_file_without_a_scale_is_damaged(tmp_path):
    path = tmp_path / "small.safetensors"
    quantised_file(path, drop=("layers.0.expand.weight" + SCALE,))
    with pytest.raises(AvfaceError, match=r"small\.safetensors: damaged: .*convert_moonshine"):
        load_moonshine(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10, "heads": 4}, "must be a multiple of heads"),
        ({"layers": 0}, "layers=0"),
        ({"rotated": 3}, "rotated=3"),
        ({"rotated": 64}, "rotated=64"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        MoonshineConfig(**changes)


def test_the_shipped_files_are_small():
    encoder, reads = (path.stat().st_size for path in readout.HEARING_FILES)
    assert encoder + reads < 16_000_000
