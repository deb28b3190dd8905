import numpy as np
import pytest

from avface.speech.phones import SILENCE, SYMBOLS
from avface.training.acoustic.phone_alignment import align_phones


def logits_of(rows, sure=4.0, rng=None):
    """What a model would say about rows of symbols, (R, 29)."""
    logits = np.zeros((len(rows), len(SYMBOLS)))
    logits[np.arange(len(rows)), rows] = sure
    return logits if rng is None else logits + rng.normal(0, 1.5, logits.shape)


def random_rows(rng, phones):
    """(rows, phones): each phone 2 to 8 rows, some pauses, no phone twice in a row."""
    rows, said = [SILENCE] * 5, []
    for _ in range(phones):
        phone = int(rng.integers(1, len(SYMBOLS)))
        while said and phone == said[-1]:
            phone = int(rng.integers(1, len(SYMBOLS)))
        said.append(phone)
        rows += [phone] * int(rng.integers(2, 9))
        if rng.random() < 0.1:
            rows += [SILENCE] * int(rng.integers(3, 20))
    return np.array(rows), np.array(said)


def test_what_is_clear_is_found_exactly():
    rows, phones = random_rows(np.random.default_rng(0), 40)

    np.testing.assert_array_equal(align_phones(logits_of(rows), phones), rows)


def test_the_text_finds_what_the_model_hardly_hears():
    rng = np.random.default_rng(1)
    rows, phones = random_rows(rng, 60)
    logits = logits_of(rows, 1.5, rng)

    heard = (logits.argmax(1) == rows)[rows != SILENCE].mean()
    aligned = (align_phones(logits, phones) == rows)[rows != SILENCE].mean()

    assert heard < 0.5
    assert aligned > 0.8


def test_every_phone_is_said_in_its_order_whatever_is_heard():
    rng = np.random.default_rng(2)
    phones = random_rows(rng, 30)[1]
    aligned = align_phones(rng.normal(size=(120, len(SYMBOLS))), phones)

    changes = np.flatnonzero(np.diff(aligned, prepend=-1))
    assert [phone for phone in aligned[changes] if phone != SILENCE] == phones.tolist()


def test_a_phone_said_twice_takes_two_turns():
    rows = np.array([0, 0, 5, 5, 5, 5, 5, 5, 0, 0])

    aligned = align_phones(logits_of(rows), np.array([5, 5]))

    np.testing.assert_array_equal(aligned, rows)
    assert align_phones(logits_of(rows[:5]), np.array([5, 5, 5])) is None


def test_silence_among_the_phones_is_passed_over():
    rows, phones = random_rows(np.random.default_rng(3), 10)
    with_pauses = np.insert(phones, [0, 4, 10], SILENCE)

    np.testing.assert_array_equal(
        align_phones(logits_of(rows), with_pauses), align_phones(logits_of(rows), phones)
    )


@pytest.mark.parametrize("rows", [1, 30])
def test_nothing_said_is_silence(rows):
    aligned = align_phones(np.zeros((rows, len(SYMBOLS))), np.array([], int))

    np.testing.assert_array_equal(aligned, np.full(rows, SILENCE))
