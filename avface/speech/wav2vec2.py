"""wav2vec 2.0 through `transformers`, with the user's copy of the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avface.errors import AvfaceError

DEFAULT_WEIGHTS = "facebook/wav2vec2-base-960h"
"""Searched in the user's Hugging Face cache; never downloaded."""
ROW_SECONDS = 0.02
"""Seconds between rows: the convolutions step by 320 samples."""
FIRST_ROW = 0.0125
"""Seconds at the middle of row 0: the convolutions see 400 samples."""
_BLOCK, _CONTEXT = 30 * 50, 5 * 50  # rows of a block, and of its context on either side
_STEP, _FIELD = 320, 400


def wav2vec2_rows(sound: Tensor, weights: str | Path = DEFAULT_WEIGHTS) -> Tensor:
    """Last hidden states (R, D), 50 a second, of which number n lies at FIRST_ROW + n * ROW_SECONDS.

    sound: (N,) samples at 16 kHz, which are standardised over the clip as in the network's training. Since attention
    spans the whole sound, long clips are processed in blocks of half a minute with 5 s of context on either side.

    Raises:
        AvfaceError: if transformers or the weights are missing.
    """
    try:
        from transformers import Wav2Vec2Model
    except ImportError:
        raise AvfaceError(
            "speech features of kind 'wav2vec2' need transformers; install it with: pip install 'avface[wav2vec2]'"
        ) from None
    try:
        model = Wav2Vec2Model.from_pretrained(str(weights), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise AvfaceError(
            f"{weights}: no weights of wav2vec 2.0 in safetensors there or in the Hugging Face cache ({reason}); "
            "avface doesn't download them: fetch them first, or name a folder that holds them"
        ) from None
    model = model.to(sound.device).eval()
    sound = (sound - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
    sound = torch.nn.functional.pad(sound, (0, max(0, _FIELD - len(sound))))
    count = (len(sound) - _FIELD) // _STEP + 1
    blocks = []
    with torch.no_grad():
        for first in range(0, count, _BLOCK):
            begin, end = max(first - _CONTEXT, 0), min(first + _BLOCK + _CONTEXT, count)
            piece = sound[begin * _STEP : (end - 1) * _STEP + _FIELD]
            rows = model(piece[None]).last_hidden_state[0]
            blocks.append(rows[first - begin : first - begin + min(_BLOCK, count - first)])
    return torch.cat(blocks)
