"""Forced alignment of known phones: the Viterbi path through the probabilities of an acoustic model."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Floats, Int, Ints
from avface.speech.phones import SILENCE

SMOOTHING = 0.1
"""Share of the probability that is spread evenly over all symbols: the model may be overconfident on new voices."""
PAUSE = -3.0
"""Logarithm of the odds of a pause between two phones."""
LEAST_SHARE = 0.005
"""Added to the share of each symbol in the recording before probabilities are divided by it."""


def align_phones(logits: Floats, phones: Ints) -> Int | None:
    """The symbol (R,) at each row, for phones (N,) spoken in this order; None if there are too many of them.

    Each phone has at least two rows; before, between and after them there may be silence. Posterior probabilities are
    divided by the root of each symbol's share, as by its prior in hybrid speech recognition (Bourlard & Morgan,
    Connectionist speech recognition, 1994), so that frequent symbols don't dominate.

    Args:
        logits: (R, 29) of the acoustic model.
        phones: (N,) indices into `avface.speech.phones.SYMBOLS`; silence among them is ignored.
    """
    spoken = np.asarray(phones)[np.asarray(phones) != SILENCE]
    # states: silence, then for each phone its first row, its other rows, and the silence after it
    symbols = np.full(3 * len(spoken) + 1, SILENCE)
    symbols[1::3] = symbols[2::3] = spoken
    states = np.arange(len(symbols))
    first_row, silent = states % 3 == 1, states % 3 == 0
    steps = np.zeros((3, len(states)))  # from the state itself, the one before, and the one before that
    steps[0, first_row] = -np.inf
    steps[1, silent] = PAUSE
    steps[2, ~first_row] = -np.inf
    likelihood = _log_likelihood(np.asarray(logits, float))[:, symbols]
    scores = np.full(len(states), -np.inf)
    scores[:2] = likelihood[0, :2]
    previous = np.zeros(likelihood.shape, np.int8)
    options = np.full((3, len(states)), -np.inf)
    for row in range(1, len(likelihood)):
        options[0] = scores
        options[1, 1:] = scores[:-1]
        options[2, 2:] = scores[:-2]
        options += steps
        previous[row] = options.argmax(0)
        scores = options[previous[row], states] + likelihood[row]
        options[:] = -np.inf
    state = len(states) - 1 - int(len(states) > 1 and scores[-2] > scores[-1])
    if not np.isfinite(scores[state]):
        return None
    path = np.empty(len(likelihood), np.int64)
    for row in range(len(likelihood) - 1, -1, -1):
        path[row] = state
        state -= previous[row, state]
    return np.asarray(symbols[path], np.int64)


def _log_likelihood(logits: F64) -> F64:
    """Logarithm of smoothed probabilities over the square root of the symbols' shares, (R, 29)."""
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    shares = chances.mean(0) + LEAST_SHARE
    return np.asarray(np.log((1 - SMOOTHING) * chances + SMOOTHING / chances.shape[1]) - 0.5 * np.log(shares))
