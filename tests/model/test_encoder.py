"""The layers of the encoder, where they differ from PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.forward import set_precision

TINY = EncoderConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


@pytest.fixture
def strict(monkeypatch):
    """Layer norm as the CUDA kernel is: input and weights must be of one type."""
    seen, plain = [], F.layer_norm

    def layer_norm(hidden, shape, weight, bias, eps):
        seen.append((hidden.dtype, weight.dtype, bias.dtype))
        if hidden.device.type != "cpu" and len(set(seen[-1])) > 1:
            raise RuntimeError("expected scalar type BFloat16 but found Float")
        return plain(hidden, shape, weight, bias, eps)

    monkeypatch.setattr(F, "layer_norm", layer_norm)
    return seen


def test_a_bf16_encoder_runs_where_types_must_not_be_mixed(strict):
    encoder = Encoder(TINY, pooler=False).to("meta")  # any device but the CPU
    set_precision(encoder, "bf16")
    ids = torch.ones(2, 4, dtype=torch.long, device="meta")
    assert encoder.padded(ids, ids, ids).dtype == torch.bfloat16
    assert (torch.bfloat16,) * 3 in strict


def test_on_the_cpu_a_norm_computes_with_fp32_weights(strict):
    encoder = Encoder(TINY, pooler=False)
    set_precision(encoder, "bf16")
    ids = torch.ones(2, 4, dtype=torch.long)
    assert encoder.padded(ids, ids, ids).dtype == torch.bfloat16
    assert (torch.bfloat16, torch.float32, torch.float32) in strict
