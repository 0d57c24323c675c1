import time

import pytest
import torch

from hf_matryoshka.evaluation.cost import index_memory_mb, level_cost, measure_latency
from hf_matryoshka.modeling.configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from hf_matryoshka.modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel


@pytest.fixture
def adaptor():
    return MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=32, matryoshka_dims=[8, 32], kind="linear"))


def test_latency_is_the_median_after_warmup():
    delays = iter([0.2, 0.01, 0.01, 0.15])
    # The slow first call is warm-up, the slow last one an outlier.
    assert 9 < measure_latency(lambda: time.sleep(next(delays)), repeats=3, warmup=1) < 60
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        measure_latency(lambda: None, repeats=0)


def test_cost_joins_arithmetic_latency_and_memory(adaptor):
    cost = level_cost(adaptor, "d8", num_vectors=10**6, repeats=3)
    assert set(cost) == {"parameters", "macs", "bytes_per_vector", "memory_mb", "latency_ms"}
    assert cost["bytes_per_vector"] == 32
    assert cost["memory_mb"] == 32
    assert cost["latency_ms"] > 0
    assert {key: cost[key] for key in ("parameters", "macs")} == {
        key: value for key, value in adaptor.cost("d8").items() if key != "bytes_per_vector"
    }
    assert set(level_cost(adaptor, repeats=0)) == {"parameters", "macs", "bytes_per_vector"}


def test_the_given_level_and_vectors_are_run_in_evaluation_mode(adaptor):
    seen = []
    adaptor.adaptor.register_forward_hook(
        lambda module, args, output: seen.append((tuple(args[0].shape), output.shape[-1], module.training))
    )
    adaptor.train()
    level_cost(adaptor, "d8", vectors=torch.ones(5, 32), repeats=1)
    assert set(seen) == {((5, 32), 8, False)}
    assert adaptor.training


def test_bad_input_is_named(adaptor):
    with pytest.raises(ValueError, match="level 'd9' does not exist"):
        level_cost(adaptor, "d9")
    with pytest.raises(ValueError, match="num_vectors must be positive, but is 0"):
        index_memory_mb(4, 0)
