"""Delta packs: what they hold, and that they give the weights of the full export."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_matryoshka.trainers import dds_bank
from hf_matryoshka.trainers.delta_pack import DeltaPack, apply_delta_pack

from ..modeling.delta_models import make, outputs
from .dds_models import assert_same, dds_layers, stock, weights, with_dds


MAKERS = {
    "bert": stock,
    "modernbert": lambda: stock("DeltaModernBertModel"),
    "nested": lambda: make("DeltaModernBertForMaskedLM", "mixed"),
    "ordered": lambda: make("DeltaBertForMaskedLM", "ordered"),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("private_rank", [0, 2])
@pytest.mark.parametrize("maker", list(MAKERS))
def test_an_applied_pack_gives_the_weights_of_the_full_export(maker, private_rank, dtype, tmp_path):
    plain, config = MAKERS[maker], {"private_rank": private_rank, "bank_seed": 4}
    model = with_dds(plain(), **config)
    model.load_bank({name: 1.1 * tensor for name, tensor in model.bank_tensors().items()})
    pack = model.export_delta_pack(tmp_path / "pack.safetensors", dtype=dtype)
    model.save_bank(tmp_path / "bank.safetensors")
    assert pack.pack_bytes == (tmp_path / "pack.safetensors").stat().st_size
    assert pack.bank_bytes == sum(tensor.nbytes for tensor in model.bank_tensors().values())
    applied = apply_delta_pack(plain(), tmp_path / "pack.safetensors", tmp_path / "bank.safetensors")
    assert type(applied) is type(plain()) and all(p.requires_grad for p in applied.parameters())
    for layer in dds_layers(model).values():
        for values in (layer.dds_coefficients, layer.dds_private_left, layer.dds_private_right):
            for parameter in values.values():
                parameter.data = parameter.data.to(dtype).to(torch.float32)
    assert_same(weights(applied), weights(model.merge_and_unload()))
    assert any(not torch.equal(tensor, plain().state_dict()[name]) for name, tensor in weights(applied).items())


def test_a_pack_is_a_few_kilobytes_of_numbers(tmp_path):
    model = make("DeltaBertModel", [[1.0, 4, 12]], num_hidden_layers=12).to_stock()
    adapted = with_dds(model, num_atoms=16, rank=64)
    pack = adapted.export_delta_pack(tmp_path / "pack")
    # 16 atoms, 6 targets and 12 layers, of 2 bytes each, and 1.3 KB that say what they belong to.
    assert pack.coefficients.numel() * 2 == 2304 and pack.pack_bytes < 2304 + 1300
    assert len({pack.to_bytes() for _ in range(10)}) == 1
    loaded = DeltaPack.load(tmp_path / "pack")
    assert (loaded.pack_bytes, loaded.bank_bytes) == (pack.pack_bytes, pack.bank_bytes)
    assert loaded.targets == pack.targets and loaded.bank_sha256 == pack.bank_sha256


def test_a_pack_fits_the_encoder_under_another_head():
    pack = with_dds(stock(), private_rank=1).export_delta_pack(dtype=torch.float32)
    expected = outputs(with_dds(stock(), private_rank=1).merge_and_unload().bert)
    encoder = stock("DeltaBertModel")
    encoder.load_state_dict(stock().bert.state_dict(), strict=False)
    assert torch.equal(outputs(apply_delta_pack(encoder, pack)), expected)


def test_a_pack_of_a_layer_of_the_head():
    targets = ["query", "transform.dense"]
    model = with_dds(stock(), target_modules=targets)
    pack, merged = model.export_delta_pack(dtype=torch.float32), weights(model.merge_and_unload())
    assert_same(weights(apply_delta_pack(stock(), pack)), merged)
    other = stock()
    other.cls.predictions.transform.dense.weight.data += 1
    with pytest.raises(ValueError, match="the delta pack is for a base with the sha256"):
        apply_delta_pack(other, pack)


def test_random_atoms_need_no_file_and_another_bank_is_refused():
    model = with_dds(stock(), bank_seed=7)
    pack, expected = (
        model.export_delta_pack(dtype=torch.float32),
        weights(with_dds(stock(), bank_seed=7).merge_and_unload()),
    )
    assert_same(weights(apply_delta_pack(stock(), pack)), expected)
    plain = stock()
    with pytest.raises(
        ValueError, match="for a bank with the sha256 .*, but this one has .*; give the file of the bank"
    ):
        apply_delta_pack(plain, pack, with_dds(stock(), bank_seed=8).bank_tensors())
    model.load_bank(with_dds(stock(), bank_seed=8).bank_tensors())
    with pytest.raises(ValueError, match="but the random atoms of its seed have"):
        apply_delta_pack(plain, model.export_delta_pack())
    assert_same(weights(plain), weights(stock()))


def test_another_base_is_refused_and_stays_as_it_is():
    pack = with_dds(stock()).export_delta_pack()
    other = stock()
    other.bert.embeddings.word_embeddings.weight.data[5] += 1
    before = weights(other)
    with pytest.raises(ValueError, match="is for a base with the sha256 .*, but this BertForMaskedLM has"):
        apply_delta_pack(other, pack)
    assert_same(weights(other), before)
    with pytest.raises(
        ValueError, match=r"changes the linear layer encoder\.layer\.0\..*, which this ModernBertModel does"
    ):
        apply_delta_pack(stock("DeltaModernBertModel"), pack)
    with pytest.raises(ValueError, match="is for a base with the sha256"):
        apply_delta_pack(stock().to(torch.bfloat16), pack)


def test_atoms_that_do_not_fit_are_refused():
    model = with_dds(stock(), rank=2)
    pack, wrong = model.export_delta_pack(), with_dds(stock(), rank=1).bank_tensors()
    forged = DeltaPack(**{**vars(pack), "bank_sha256": dds_bank.tensors_sha256(wrong)})
    with pytest.raises(
        ValueError, match=r"left atoms of encoder.* have the shape \(32, 4, 1\), but \(32, 4, 2\) is needed"
    ):
        apply_delta_pack(stock(), forged, wrong)
    small = {target: packed._replace(rows=8) for target, packed in pack.targets.items()}
    bank = {name: t[:8] if name.endswith("left") else t for name, t in model.bank_tensors().items()}
    forged = DeltaPack(**{**vars(pack), "targets": small, "bank_sha256": dds_bank.tensors_sha256(bank)})
    with pytest.raises(ValueError, match="have 8 rows and 32 columns, but layer bert.* has 32 and 32"):
        apply_delta_pack(stock(), forged, bank)


def test_files_that_are_no_packs(tmp_path):
    model, path = with_dds(stock()), tmp_path / "pack.safetensors"
    with pytest.raises(FileNotFoundError, match="pack.safetensors does not exist; give a file that export_delta_pack"):
        apply_delta_pack(stock(), path)
    model.save_bank(path)
    with pytest.raises(ValueError, match="pack.safetensors is no file that export_delta_pack wrote"):
        apply_delta_pack(stock(), path)
    model.export_delta_pack(path)
    metadata = dds_bank.read_tensors(path, "delta_pack", "")[1]
    save_file(load_file(path), path, metadata={**metadata, "format_version": "2"})
    with pytest.raises(
        ValueError, match="has format version 2, but this version of hf_matryoshka reads up to 1; update"
    ):
        apply_delta_pack(stock(), path)


def test_what_cannot_be_packed():
    model = with_dds(stock())
    with pytest.raises(ValueError, match="dtype must be torch.float16 or torch.float32, but is torch.bfloat16"):
        model.export_delta_pack(dtype=torch.bfloat16)
    next(iter(dds_layers(model).values())).dds_coefficients["default"].data[1] = 1e5
    with pytest.raises(ValueError, match=r"a value of 1e\+05, which does not fit torch.float16; use torch.float32"):
        model.export_delta_pack()
    model.export_delta_pack(dtype=torch.float32)
    model.merge_adapter()
    with pytest.raises(ValueError, match="adapters are merged, .*; call unmerge_adapter first"):
        model.export_delta_pack(dtype=torch.float32)
    whole = with_dds(stock(), modules_to_save=["decoder"])
    with pytest.raises(
        ValueError, match=r"holds no whole layers, but adapter 'default' has modules_to_save \(decoder\)"
    ):
        whole.export_delta_pack()
