"""Time and memory of tiny encoders beside their rivals."""

import pytest
import torch

from hf_matryoshka import MatryoshkaMambaConfig
from hf_matryoshka.evaluation import mamba_speed
from hf_matryoshka.evaluation.mamba_speed import measure_mamba_speed, peak_memory
from hf_matryoshka.evaluation.speed_rivals import build_system, layer_parameters, speed_systems


SIZES = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 16, "state_size": 8}
SIZES |= {"chunk_size": 8, "segment_length": 32, "block_size": 16, "matryoshka_dims": [8, 16], "widths": [0.5, 1.0]}


def config(**options):
    return MatryoshkaMambaConfig(**{**SIZES, **options})


def test_the_rivals_are_as_large_and_compute_what_they_say():
    systems = speed_systems(config())
    assert [name for name in systems if name.startswith("ours ")] == [
        "ours w0.5",
        "ours w1.0",
        "ours w0.5-bf16",
        "ours w1.0-bf16",
        "ours w0.5-onednn",
        "ours w1.0-onednn",
    ]
    rivals = ["bert_sdpa", "modernbert_sdpa", "bert_sdpa-onednn", "modernbert_sdpa-onednn", "mamba2_stock"]
    assert [name for name, linear in systems.items() if not linear] == rivals
    assert "ours_causal" in speed_systems(config(direction="bidirectional"))
    assert "mamba2_stock" not in speed_systems(config(num_heads=4))
    built = {name: build_system(name, config(), 40) for name in systems}
    ours = layer_parameters(built["ours w1.0"][0])
    for name in ("bert_sdpa", "modernbert_sdpa"):
        assert layer_parameters(built[name][0]) == pytest.approx(ours, rel=0.02)
        assert built[name][0].config._attn_implementation == "sdpa"
    assert built["ours_block_bidirectional"][0].config.direction == "block_bidirectional"
    ids = torch.randint(1, 50, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # The two that are compared are one function.
        mixers, stock = (built[name][0](input_ids=ids).last_hidden_state for name in ("ours_mixers", "mamba2_stock"))
        torch.testing.assert_close(mixers, stock, atol=1e-4, rtol=0)
        assert built["mamba2_stock"][0].config.chunk_size == 256
        half, whole = (built[name][1](ids).embeddings for name in ("ours w1.0-bf16", "ours w1.0"))
        assert 0 < (half - whole).abs().max() < 0.1
        for name in ("ours w0.5", "ours w1.0", "bert_sdpa", "modernbert_sdpa"):
            plain, packed = (built[one][1](ids)[0] for one in (name, f"{name}-onednn"))
            torch.testing.assert_close(packed, plain, atol=1e-5, rtol=0)
            assert not any(type(module) is torch.nn.Linear for module in built[f"{name}-onednn"][0].modules())
        narrow = built["ours w0.5"][1](ids).embeddings
        torch.testing.assert_close(narrow, built["ours w1.0"][0](ids, level="w0.5").embeddings, rtol=0, atol=0)


def test_rows_have_medians_ratios_and_slopes(monkeypatch):
    asked = []
    monkeypatch.setattr(mamba_speed, "peak_memory", lambda name, own, length: asked.append((name, length)) or 1.5)
    rows = measure_mamba_speed(config(), [600, 512, 700, 16], [700, 16], 600, rounds=2, progress=False)
    packed = [row for row in rows if row["linear_layers"] == "onednn"]
    assert [row["over_ours"] for row in packed if row["level"] == "w1.0" and "rounds" in row][:1] == [1]
    rows = [row for row in rows if row not in packed]
    found = {(row["system"], row["level"], row["precision"], row["split"], row["metric"]): row for row in rows}
    ours = found["ours", "w1.0", "fp32", "512", "seconds"]
    assert ours["over_ours"] == 1 and ours["rounds"] == 2 and 0 < ours["low"] <= ours["value"] <= ours["high"]
    assert ("bert_sdpa", "w1.0", "fp32", "600", "seconds") in found
    assert ("bert_sdpa", "w1.0", "fp32", "700", "seconds") not in found
    assert ("ours", "w0.5", "fp32", "512-700", "exponent") in found
    assert not any(key[0] == "bert_sdpa" and key[-1] == "exponent" for key in found)  # of two points
    linear = ["ours w1.0", "ours_block_bidirectional", "ours w1.0-onednn", "ours_mixers"]
    assert asked[:4] == [(name, 700) for name in linear] and ("bert_sdpa", 16) in asked and len(asked) == 4 + 9
    with pytest.raises(ValueError, match=r"lengths must be positive, but are \[0\]"):
        measure_mamba_speed(config(), [0])


def test_memory_is_what_a_fresh_process_needs():
    hidden = 64 * 4 * 30_000 / 1e6
    assert peak_memory("ours w1.0", config(segment_length=32768), 30_000) > 2 * hidden
