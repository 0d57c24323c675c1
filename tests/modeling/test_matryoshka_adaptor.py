import pytest
import torch
from transformers import AutoModel

from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel


KINDS = ["mlp", "linear", "orthogonal", "permutation"]
DIMS = [4, 8, 24]


def adaptor(kind, projection=False, noise=0.2, **config):
    torch.manual_seed(0)
    model = MatryoshkaAdaptorModel(
        MatryoshkaAdaptorConfig(
            embedding_dim=24, matryoshka_dims=DIMS, kind=kind, projection=projection, num_reflections=4, **config
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
        if kind == "orthogonal" and projection:
            model.adaptor.projection.weight.copy_(torch.linalg.qr(torch.randn(24, 24))[0])
    return model.eval()


@pytest.fixture
def embeddings():
    return torch.randn(6, 24, generator=torch.Generator().manual_seed(1))


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_starts_as_the_identity(self, kind, projection, embeddings):
        model = MatryoshkaAdaptorModel(
            MatryoshkaAdaptorConfig(embedding_dim=24, matryoshka_dims=DIMS, kind=kind, projection=projection)
        )
        assert torch.allclose(model(embeddings).embeddings, unit(embeddings), atol=1e-6)

    def test_a_level_is_the_renormalised_prefix_of_the_full_width(self, kind, projection, embeddings):
        model = adaptor(kind, projection)
        full = model(embeddings).embeddings
        for dim in DIMS:
            by_name = model(embeddings, level=f"d{dim}").embeddings
            assert by_name.shape == (6, dim)
            assert torch.allclose(by_name, unit(full[:, :dim]), atol=1e-6)
            assert torch.equal(by_name, model(embeddings, matryoshka_dim=dim).embeddings)

    def test_a_cut_level_equals_the_level(self, kind, projection, embeddings):
        model = adaptor(kind, projection)
        for index, dim in enumerate(DIMS):
            small = model.cut(f"d{dim}")
            assert small.config.levels == model.config.levels[: index + 1]
            assert all(p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes for p in small.parameters())
            for level in small.config.levels:
                expected = model(embeddings, level=level).embeddings
                assert torch.allclose(small(embeddings, level=level).embeddings, expected, atol=1e-6)

    def test_reload_is_bit_equal(self, kind, projection, embeddings, tmp_path):
        model = adaptor(kind, projection)
        model.save_pretrained(tmp_path)
        reloaded = AutoModel.from_pretrained(tmp_path)
        assert torch.equal(reloaded(embeddings).embeddings, model(embeddings).embeddings)
        assert reloaded.config.levels == ("d4", "d8", "d24")

    def test_cost_counts_the_weights_and_grows(self, kind, projection, embeddings):
        model = adaptor(kind, projection)
        costs = [model.cost(level) for level in model.config.levels]
        # A permutation stores one score a coordinate and has no arithmetic.
        assert costs[-1]["parameters"] == sum(p.numel() for p in model.parameters())
        for small, large in zip(costs, costs[1:], strict=False):
            assert small["bytes_per_vector"] < large["bytes_per_vector"]
            assert small["macs"] <= large["macs"]
        assert costs[0]["bytes_per_vector"] == 16

    def test_gradients_reach_the_trained_weights(self, kind, projection, embeddings):
        model = adaptor(kind, projection).train()
        model(embeddings, level="d8").embeddings[:, 0].sum().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert trained and all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("projection", [False, True])
def test_orthogonal_keeps_full_width_inner_products(projection, embeddings):
    model = adaptor("orthogonal", projection, noise=1.0)
    adapted = model.adaptor(embeddings, 24)
    assert not torch.allclose(adapted, embeddings, atol=0.1)
    assert torch.allclose(adapted @ adapted.T, embeddings @ embeddings.T, atol=1e-4)


def test_orthogonal_is_the_product_of_its_reflections(embeddings):
    model = adaptor("orthogonal", noise=1.0)
    expected = embeddings
    for normal in unit(model.adaptor.reflections).flip(0):
        expected = expected - 2 * (expected @ normal)[:, None] * normal
    assert torch.allclose(model.adaptor(embeddings, 24), expected, atol=1e-5)


def test_permutation_training_values_are_the_exact_order(embeddings):
    model = adaptor("permutation", noise=1.0)
    order = torch.argsort(model.adaptor.scores, descending=True)
    expected = embeddings[:, order[:8]]
    assert torch.equal(model.adaptor(embeddings, 8), expected)
    assert torch.allclose(model.train().adaptor(embeddings, 8), expected, atol=1e-6)


def test_the_largest_level_of_an_orthogonal_adaptor_stays_orthogonal():
    model = adaptor("orthogonal", True)
    assert model.cut("d24").config.kind == "orthogonal"
    assert model.cut("d8").config.kind == "linear"


def test_default_dims_are_log_spaced():
    assert MatryoshkaAdaptorConfig(embedding_dim=384).matryoshka_dims == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384]
    assert MatryoshkaAdaptorConfig(embedding_dim=10).matryoshka_dims == [10]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "cubic"}, "kind 'cubic' does not exist; choose one of mlp"),
        ({"matryoshka_dims": [8, 4]}, "strictly increasing"),
        ({"matryoshka_dims": []}, "matryoshka_dims is empty"),
        ({"matryoshka_dims": [4, 48]}, "the embeddings have 24 dimensions"),
        ({"kind": "orthogonal", "num_reflections": 3}, "num_reflections must be even"),
        ({"kind": "orthogonal", "matryoshka_dims": [4, 8]}, "use kind 'linear' for fewer outputs"),
    ],
)
def test_bad_configs_are_refused(config, message):
    with pytest.raises(Exception, match=message):
        MatryoshkaAdaptorConfig(embedding_dim=24, **config)


def test_bad_calls_are_refused(embeddings):
    model = adaptor("linear")
    with pytest.raises(ValueError, match="level 'd5' does not exist; choose one of d4, d8, d24"):
        model(embeddings, level="d5")
    with pytest.raises(ValueError, match="level True does not exist"):
        model(embeddings, level=True)
    with pytest.raises(ValueError, match="matryoshka_dim 5 was not trained; choose one of 4, 8, 24"):
        model(embeddings, matryoshka_dim=5)
    with pytest.raises(ValueError, match="not both"):
        model(embeddings, level="d4", matryoshka_dim=4)
    with pytest.raises(ValueError, match="the embeddings have width 8, but this adaptor takes 24"):
        model(embeddings[:, :8])
