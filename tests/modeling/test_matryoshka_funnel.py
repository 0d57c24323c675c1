import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel

from hf_matryoshka.modeling import MatryoshkaFunnelConfig, MatryoshkaFunnelModel
from hf_matryoshka.modeling.configuration_matryoshka_funnel import PRESETS
from hf_matryoshka.modeling.modeling_matryoshka_funnel import ROWS_IN_ONE_CALL

from .funnel_models import DIMS, KINDS, embeddings, make


@pytest.fixture
def x():
    return embeddings()


@pytest.fixture(autouse=True)
def no_grad(request):
    with torch.set_grad_enabled("gradient" in request.node.name or "do_not_move" in request.node.name):
        yield


@pytest.mark.parametrize("geometry", ["sphere", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_a_level_is_a_prefix_and_decodes_by_itself(self, kind, geometry, x):
        model = make(kind, geometry=geometry)
        full = model.encode(x)
        together = model.decode_levels(full)
        for stage, dim in enumerate(DIMS):
            latents = model.encode(x, f"d{dim}")
            torch.testing.assert_close(latents, full[:, :dim], rtol=0, atol=1e-6)
            alone = model(x, level=stage)
            assert alone.reconstructions.shape == (7, 32) and alone.latents.shape == (7, dim)
            torch.testing.assert_close(alone.reconstructions, together[stage], rtol=0, atol=1e-6)
            # What follows the prefix is not read.
            noise = torch.cat([latents, torch.randn(7, 9 - dim)], dim=1)
            torch.testing.assert_close(model.decode(noise, active_dim=dim), together[stage], rtol=0, atol=1e-6)
        assert (together[0] - together[2]).abs().max() > 1e-3
        torch.testing.assert_close(model(x, all_levels=True).reconstructions, together)

    def test_many_rows_decode_as_few(self, kind, geometry, x):
        """A CPU decodes them level by level."""
        model = make(kind, geometry=geometry)
        many = model.encode(x).repeat(ROWS_IN_ONE_CALL, 1)
        together = model.decode_levels(many).unflatten(1, (ROWS_IN_ONE_CALL, 7))
        few = model.decode_levels(many[:7])
        torch.testing.assert_close(together, few[:, None].expand_as(together), rtol=1e-5, atol=1e-5)

    def test_a_cut_level_is_a_model_of_its_own(self, kind, geometry, x):
        model = make(kind, geometry=geometry)
        for stage, dim in enumerate(DIMS):
            small = model.cut(stage)
            assert small.config.levels == model.config.levels[: stage + 1] and small.config.latent_dim == dim
            for level in small.config.levels:
                own, whole = small(x, level=level), model(x, level=level)
                torch.testing.assert_close(own.latents, whole.latents, rtol=0, atol=1e-6)
                torch.testing.assert_close(own.reconstructions, whole.reconstructions, rtol=0, atol=1e-6)
            torch.testing.assert_close(small.log_prob(own.latents), model.log_prob(own.latents), rtol=1e-5, atol=1e-5)
            assert small.cost()["parameters"] == sum(tensor.numel() for tensor in small.state_dict().values())
            assert small.cost() == model.cost(stage)
        assert model.cost(0)["bytes_per_vector"] == 12
        # A flow computes all of its bijection at every level, and completes more at a smaller one.
        assert (model.cost(0)["macs"] < model.cost(2)["macs"]) == (kind != "flow")

    def test_zeros_in_whitened_coordinates_are_the_completion(self, kind, geometry, x):
        model = make(kind, geometry=geometry)
        latents = model.encode(x)
        coordinates = model.whiten(latents)
        torch.testing.assert_close(model.unwhiten(coordinates), latents, rtol=1e-4, atol=1e-5)
        for dim in DIMS:
            rest = torch.zeros(7, 9 - dim)
            completed = model.complete(latents, active_dim=dim)
            torch.testing.assert_close(completed[:, :dim], latents[:, :dim])
            given = torch.cat([model.whiten(latents, active_dim=dim), rest], dim=1)
            torch.testing.assert_close(model.unwhiten(given), completed, rtol=1e-4, atol=1e-5)

    def test_samples_have_the_density_that_is_said(self, kind, geometry, x):
        model = make(kind, geometry=geometry)
        drawn = model.sample(4000, "d5", generator=torch.Generator().manual_seed(0))
        assert drawn.shape == (4000, 5)
        coordinates = model.whiten(drawn)
        assert coordinates.mean(0).abs().max() < 0.06 and (coordinates.std(0) - 1).abs().max() < 0.06
        # The density of standard normals, and how much the map to them shrinks a volume.
        jacobians = torch.func.vmap(torch.func.jacrev(lambda row: model.whiten(row[None])[0]))(drawn[:5])
        normal = torch.distributions.Normal(0, 1).log_prob(coordinates[:5]).sum(-1)
        torch.testing.assert_close(model.log_prob(drawn[:5]), normal + torch.linalg.slogdet(jacobians)[1])

    def test_it_is_read_back(self, kind, geometry, x, tmp_path):
        model = make(kind, geometry=geometry, embedding_norm=3.0, embedding_convention="raw_mean")
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert torch.equal(loaded(x).reconstructions, model(x).reconstructions)
        assert loaded.config.embedding_convention == "raw_mean"
        if geometry == "sphere":
            torch.testing.assert_close(loaded(x).reconstructions.norm(dim=-1), torch.full((7,), 3.0))
            torch.testing.assert_close(model.encode(5 * x), model.encode(x), rtol=1e-5, atol=1e-5)


def test_every_network_of_every_kind_gets_a_gradient():
    for kind in KINDS:
        model = make(kind).train()
        out = model(embeddings(), all_levels=True, return_densities=True)
        (out.reconstructions.pow(3).sum() - out.log_prob.sum() + out.predictions.sum()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters()), kind


def test_densities_of_the_latent_do_not_move_a_residual_funnel():
    model = make("residual").train()
    model(embeddings(), return_densities=True).log_prob.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.funnel.encoder.parameters())
    # The predecessors of a stage in a cascade learn to predict it; the stage itself does not move.
    model = make("cascade").train()
    model(embeddings(), return_densities=True).log_prob.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.funnel.encoders[0].parameters())
    assert all(p.grad is None or not p.grad.any() for p in model.funnel.encoders[-1].parameters())


def test_presets_have_the_published_and_an_honest_number_of_parameters():
    counts = {}
    for name in PRESETS:
        with torch.device("meta"):
            model = MatryoshkaFunnelModel(MatryoshkaFunnelConfig.from_preset(name))
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
        assert model.config.matryoshka_dims == [16, 32, 48, 64, 80, 96, 112, 128]
    assert counts == {"original": 5_676_896, "original_16m": 16_141_152}
    with pytest.raises(ValueError, match="preset 'x' does not exist; choose one of original, original_16m"):
        MatryoshkaFunnelConfig.from_preset("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matryoshka_dims": [8, 4]}, "strictly increasing"),
        ({"matryoshka_dims": [4, 33]}, "end at 33, but only 32 dimensions can be encoded"),
        ({"matryoshka_dims": [4, 32], "kind": "flow"}, "end at 32, but only 31 dimensions"),
        ({"matryoshka_dims": [4, 8], "stage_dims": [5, 8]}, "does not begin with matryoshka_dims"),
        ({"matryoshka_dims": [4], "stage_dims": [4, 8]}, "'residual' completes no latent"),
        ({"kind": "vae"}, "kind 'vae' does not exist; choose one of residual, cascade, flow"),
        ({"geometry": "torus"}, "geometry 'torus' does not exist"),
        ({"embedding_convention": "cls"}, "embedding_convention 'cls' does not exist; choose one of raw_mean"),
        ({"encoder_sizes": [0]}, "encoder_sizes must be positive"),
        ({"num_couplings": 0}, "num_couplings must be at least 1"),
        ({"embedding_norm": 0}, "embedding_norm must be above 0"),
        ({"intrinsic_dim": 8}, "intrinsic_dim is 8, but only a funnel of kind 'flow' has one, from 2 to 31"),
        ({"intrinsic_dim": 32, "kind": "flow"}, "intrinsic_dim is 32"),
        ({"intrinsic_dim": 8, "matryoshka_dims": [4, 9], "kind": "flow"}, "end at 9, but only 8 dimensions"),
        ({"embedding_dim": 1}, "embedding_dim must be at least 2"),
    ],
)
def test_bad_shapes_are_refused(options, message):
    with pytest.raises(StrictDataclassError) as error:
        MatryoshkaFunnelConfig(**{"embedding_dim": 32, **options})
    assert message in str(error.value.__cause__)


def test_bad_input_is_refused():
    model, x = make(), embeddings()
    with pytest.raises(ValueError, match=r"have shape \(7, 31\), but this funnel takes \(batch, 32\)"):
        model(x[:, :31])
    bad = x.clone()
    bad[4, 2] = torch.nan
    with pytest.raises(ValueError, match=r"embedding 4 holds NaN or infinity \(1 of 7 do\)"):
        model.encode(bad)
    with pytest.raises(ValueError, match="active_dim 4 is the end of no stage; choose one of 3, 5, 9"):
        model.decode(model.encode(x), active_dim=4)
    with pytest.raises(ValueError, match="have width 5, which is less than active_dim 9"):
        model.decode(model.encode(x, "d5"), active_dim=9)
    with pytest.raises(ValueError, match="level 'd4' does not exist; choose one of d3, d5, d9"):
        model(x, level="d4")
    with pytest.raises(ValueError, match="not both"):
        model(x, level="d3", all_levels=True)
    with pytest.raises(ValueError, match="kind 'residual' has no density of embeddings"):
        model.log_likelihood(x)
    with pytest.raises(ValueError, match="count must be at least 1"):
        model.sample(0)
