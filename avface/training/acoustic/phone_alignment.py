"""When each phone of a known text is said: the Viterbi path through what an acoustic model hears."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Floats, Int, Ints
from avface.speech.phones import SILENCE

DOUBT = 0.1
"""Share of the probability that is spread over all symbols: a model that is sure may be wrong about a new voice."""
PAUSE = -3.0
"""Logarithm of the odds of a pause between two phones."""
RARE = 0.005
"""Least share of the sound that a symbol is taken to have, when its probability is set against its share."""


def align_phones(logits: Floats, phones: Ints) -> Int | None:
    """The symbol (R,) at each row, for phones (N,) that are said in this order; None if there are too many of them.

    Each phone takes two rows or more; before, between and after them there may be silence. The probabilities are
    divided by each symbol's share of the whole, as in hybrid speech recognition (Bourlard & Morgan, Connectionist
    speech recognition, 1994), so that a symbol the model likes to say doesn't win everywhere.

    Args:
        logits: (R, 29) of the acoustic model.
        phones: (N,) indices into `avface.speech.phones.SYMBOLS`; silence among them is passed over.
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
    heard = _log_likelihood(np.asarray(logits, float))[:, symbols]
    scores = np.full(len(states), -np.inf)
    scores[:2] = heard[0, :2]
    came_from = np.zeros(heard.shape, np.int8)
    options = np.full((3, len(states)), -np.inf)
    for row in range(1, len(heard)):
        options[0] = scores
        options[1, 1:] = scores[:-1]
        options[2, 2:] = scores[:-2]
        options += steps
        came_from[row] = options.argmax(0)
        scores = options[came_from[row], states] + heard[row]
        options[:] = -np.inf
    state = len(states) - 1 - int(len(states) > 1 and scores[-2] > scores[-1])
    if not np.isfinite(scores[state]):
        return None
    path = np.empty(len(heard), np.int64)
    for row in range(len(heard) - 1, -1, -1):
        path[row] = state
        state -= came_from[row, state]
    return np.asarray(symbols[path], np.int64)


def _log_likelihood(logits: F64) -> F64:
    """Logarithm of softened probabilities over the square root of the symbols' shares, (R, 29)."""
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    shares = chances.mean(0) + RARE
    return np.asarray(np.log((1 - DOUBT) * chances + DOUBT / chances.shape[1]) - 0.5 * np.log(shares))
