"""Where the atoms of a bank come from."""

import pytest
import torch

from hf_matryoshka.trainers.dds_bank import (
    init_bank_from_differences,
    join_name,
    principal_atoms,
    random_atoms,
    split_name,
)

from ..modeling.delta_models import make
from .dds_models import assert_same, dds_layers, stock, with_dds


def dense(left, right):
    """The atoms as matrices."""
    return torch.einsum("ikr,jkr->kij", left, right)


def residual(atoms, target):
    """How far `target` is from the nearest mixture of atoms, relative to its norm."""
    matrix = atoms.flatten(1).T
    fit = torch.linalg.lstsq(matrix, target.flatten()).solution
    return ((matrix @ fit - target.flatten()).norm() / target.norm()).item()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_names_of_targets():
    name = "encoder.layer.11.attention.self.query"
    assert split_name(name) == ("encoder.layer.*.attention.self.query", "11")
    assert split_name("head.dense") == ("head.dense", "")
    for one in (name, "head.dense", "a.1.b.22.c"):
        assert join_name(*split_name(one)) == one


def test_random_atoms():
    atoms = random_atoms("t", (6, 4), num_atoms=3, rank=64, seed=0)
    assert [tuple(part.shape) for part in atoms] == [(6, 3, 4), (4, 3, 4)]
    torch.testing.assert_close(dense(*atoms).flatten(1).norm(dim=1), torch.ones(3))
    assert torch.equal(atoms[0], random_atoms("t", (6, 4), 3, 64, 0)[0])
    assert not torch.equal(atoms[0], random_atoms("t", (6, 4), 3, 64, 1)[0])
    assert not torch.equal(atoms[0], random_atoms("u", (6, 4), 3, 64, 0)[0])


def test_principal_atoms_span_what_differences_have_in_common():
    common = torch.stack([normal(8, 2, seed=s) @ normal(2, 6, seed=s + 9) for s in (1, 2)])
    differences = torch.einsum("nd,dij->nij", normal(5, 2, seed=3), common)
    # A mixture of two matrices of rank 2 has rank 4.
    atoms = dense(*principal_atoms(differences, num_atoms=2, rank=4))
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(2))
    assert max(residual(atoms, difference) for difference in differences) < 1e-5
    first, second = (residual(atoms[[index]], differences.flatten(0, 1)[:8]) for index in (0, 1))
    assert residual(dense(*principal_atoms(differences, 1, 4)), differences[0]) == pytest.approx(first)
    assert sum(residual(atoms[[0]], d) for d in differences) < sum(residual(atoms[[1]], d) for d in differences)
    assert first != second
    # A smaller rank keeps the largest components.
    cut = dense(*principal_atoms(differences, num_atoms=1, rank=1))[0]
    left, values, right = torch.linalg.svd(dense(*principal_atoms(differences, 1, 4))[0])
    torch.testing.assert_close(cut, torch.outer(left[:, 0], right[0]), atol=1e-5, rtol=0)
    assert values[0] < 0.999


def test_more_atoms_than_principal_matrices_hold_the_further_components():
    differences = normal(2, 5, 7)
    left, right = principal_atoms(differences, num_atoms=6, rank=2)
    assert left.shape == (5, 6, 2) and right.shape == (7, 6, 2)
    atoms = dense(left, right)
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(6))
    assert residual(atoms[:4], differences[0]) > 0.01
    assert max(residual(atoms, difference) for difference in differences) < 1e-5
    assert principal_atoms(differences, num_atoms=99, rank=2)[0].shape == (5, 6, 2)
    # Nothing is left over of matrices of low rank.
    low = normal(5, 1) @ normal(1, 7)
    assert principal_atoms(torch.stack([low, 2 * low]), 4, 2)[0].shape[1] == 1


@pytest.mark.parametrize("base_given", [False, True])
def test_the_bank_is_made_from_the_differences_of_trained_checkpoints(base_given):
    model, trained = with_dds(stock(), trained=False), [stock().bert, stock()]
    change = {
        name: normal(*layer.weight.shape, seed=1) for name, layer in dds_layers(model).items() if "query" in name
    }
    random = model.bank_tensors()
    for number, (name, matrix) in enumerate(change.items()):
        path = name.removeprefix("base_model.model.")
        trained[1].get_submodule(path).weight.data += (number + 1) * matrix
    trained[0].encoder.layer[0].output.dense.weight.data += 1
    with_gradients = []
    # Checkpoints may be trained one by one as they are taken.
    one_by_one = (with_gradients.append(torch.is_grad_enabled()) or other for other in trained)
    init_bank_from_differences(model, one_by_one, base=stock() if base_given else None)
    assert with_gradients == [True, True]
    bank = model.bank_tensors()
    query, output, key = (
        [bank[f"encoder.layer.*.{name}.{side}"] for side in ("left", "right")]
        for name in ("attention.self.query", "output.dense", "attention.self.key")
    )
    # All queries change along one matrix; an atom has its three largest components.
    left, values, right = torch.linalg.svd(next(iter(change.values())))
    expected = left[:, :3] * (values[:3] / values[:3].norm()) @ right[:3]
    atom = dense(*query)[0]
    torch.testing.assert_close(atom * (atom * expected).sum().sign(), expected, atol=1e-4, rtol=0)
    ones = torch.ones(32, 48) / (32 * 48) ** 0.5
    torch.testing.assert_close(dense(*output)[0].abs(), ones, atol=1e-5, rtol=0)
    # The rest stays as it was drawn.
    assert torch.equal(output[0][:, 1:], random["encoder.layer.*.output.dense.left"][:, 1:])
    assert torch.equal(key[0], random["encoder.layer.*.attention.self.key.left"])
    assert dds_layers(model)["base_model.model.bert.encoder.layer.2.output.dense"].atoms["default"].left.shape == (
        output[0].shape
    )


def test_layers_of_several_sizes_share_the_leading_parts_of_atoms():
    name = "DeltaModernBertForMaskedLM"
    model, other = with_dds(make(name, "mixed"), trained=False, rank=99), make(name, "mixed")
    layers = {path: layer for path, layer in dds_layers(model).items() if path.endswith("mlp.Wi")}
    assert len({layer.weight.shape for layer in layers.values()}) > 1
    narrow = min(layers, key=lambda path: layers[path].weight.shape[0])
    path = narrow.removeprefix("base_model.model.")
    change = normal(*layers[narrow].weight.shape)
    other.get_submodule(path).weight.data += change
    init_bank_from_differences(model, [other])
    layers[narrow].dds_coefficients["default"].data[0] = change.norm()
    found = layers[narrow].get_delta_weight("default")
    torch.testing.assert_close(found * (found * change).sum().sign(), change, atol=1e-4, rtol=0)


def test_checkpoints_that_do_not_fit():
    model = with_dds(stock(), trained=False)
    with pytest.raises(ValueError, match="others do not differ from base in any layer"):
        init_bank_from_differences(model, [stock()])
    with pytest.raises(
        ValueError, match=r"layer encoder.layer.0.*query has a weight .*, but in others\[1\] it does not"
    ):
        init_bank_from_differences(model, [stock(), stock("DeltaModernBertModel")])
    with pytest.raises(ValueError, match=r"in base it has \(16, 32\); give checkpoints of the same"):
        narrow = stock()
        narrow.bert.encoder.layer[0].attention.self.query.weight.data = torch.zeros(16, 32)
        init_bank_from_differences(model, [stock()], base=narrow)


def test_save_and_load_a_bank(tmp_path):
    model, other = with_dds(stock()), with_dds(stock("DeltaBertModel"), bank_seed=9)
    model.save_bank(tmp_path / "bank.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]
    other.load_bank(tmp_path / "bank.safetensors")
    assert_same(other.bank_tensors(), model.bank_tensors())
    left = model.bank_tensors()["encoder.layer.*.attention.self.query.left"]
    assert torch.equal(other.base_model.model.encoder.layer[3].attention.self.query.atoms["default"].left, left)


def test_a_bank_that_does_not_fit(tmp_path):
    model = with_dds(stock())
    before = model.bank_tensors()
    with pytest.raises(ValueError, match=r"left atoms of encoder.* have the shape \(32, 4, 2\), but \(32, 4, 3\)"):
        model.load_bank(with_dds(stock(), rank=2).bank_tensors())
    with pytest.raises(ValueError, match="the bank has no atoms of encoder.layer.*.attention.self.query; it has enc"):
        model.load_bank(with_dds(stock(), target_modules=["key"]).bank_tensors())
    with pytest.raises(FileNotFoundError, match="bank.safetensors does not exist; give a file that save_bank wrote"):
        model.load_bank(tmp_path / "bank.safetensors")
    (tmp_path / "text").write_text("atoms")
    with pytest.raises(ValueError, match="text is no file that save_bank wrote"):
        model.load_bank(tmp_path / "text")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="adapter_model.safetensors is no file that save_bank wrote"):
        model.load_bank(tmp_path / "adapter_model.safetensors")
    assert_same(model.bank_tensors(), before)
