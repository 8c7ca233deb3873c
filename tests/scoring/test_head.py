"""The head's reductions, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from evenbits.scoring.head import BLOCK, _argmax


@pytest.mark.parametrize("width", [BLOCK, 4 * BLOCK, 4096, 4 * BLOCK + 1])
def test_the_most_likely_token_is_torchs(width):
    logits = torch.randn(50, width, generator=torch.Generator().manual_seed(0))
    logits[0] = 0.0  # all alike: the first
    logits[1, [3, width - 1]] = 9.0  # two alike, in different blocks
    logits[2, width // 2] = torch.nan
    logits[3] = -torch.inf
    assert torch.equal(_argmax(logits), logits.argmax(dim=1))
