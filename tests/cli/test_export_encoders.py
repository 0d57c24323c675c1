"""`export` of nested encoders."""

import json
import re
import shutil

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertForMaskedLM, BertModel

from hf_matryoshka import nest_sentence_encoder, save_self_contained
from hf_matryoshka.evaluation.curve import Curve, LevelPoint

from ..modeling import delta_models


# Two levels of the full number of heads, and one between them with nine of twelve, which has no stock form.
BUDGETS = [[0.5, 12, 1], [0.75, 9, 2], [1.0, 12, 2]]


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory, tiny_sentence_transformer):
    """The run of a masked language model with a tokenizer: as many heads as there are in BERT-base."""
    run = tmp_path_factory.mktemp("run")
    sizes = {"hidden_size": 96, "num_attention_heads": 12, "num_hidden_layers": 2}
    sizes |= {"intermediate_size": 32, "full_intermediate_size": 32, "residual": "full"}
    delta_models.make("DeltaBertForMaskedLM", BUDGETS, **sizes).save_pretrained(run / "model")
    AutoTokenizer.from_pretrained(tiny_sentence_transformer).save_pretrained(run / "model")
    return run


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_sentence_transformer):
    """The run of a sentence encoder."""
    run = tmp_path_factory.mktemp("encoder-run")
    model = nest_sentence_encoder(tiny_sentence_transformer, [[0.25, 2, 1], [0.5, 2, 2], [1.0, 2, 2]], [4, 32])
    model.save(str(run / "model"))
    return run


def test_a_masked_language_model(command, masked_lm, tmp_path):
    points = [LevelPoint(f"w{w}-h{h}-d{d}", None, -3 + w, cost={"latency_ms": w}) for w, h, d in BUDGETS]
    Curve(points, "negative_nll", "validation", "ours").to_json(tmp_path / "curve.json")
    out = tmp_path / "family"
    status, output, error = command(
        *("export", masked_lm, out, "--budgets", "0.5:12:1", "1.0:12:2", "--curve", tmp_path / "curve.json")
    )
    assert status == 0, error
    assert {path.name for path in out.iterdir()} == {"w0.5-h12-d1", "w1.0-h12-d2", "full"}
    assert type(BertForMaskedLM.from_pretrained(out / "w0.5-h12-d1")) is BertForMaskedLM
    assert AutoTokenizer.from_pretrained(out / "w0.5-h12-d1")("a cat")["input_ids"]
    card = (out / "full" / "README.md").read_text()
    assert "| level | width | heads | layers |" in card and "FLOPs a token" in card and "| -2.500 |" in card
    # What the run measured is shown by default. Names of levels, one flag each, and before the folders.
    shutil.copy(tmp_path / "curve.json", masked_lm / "curve.json")
    status, output, error = command(
        *("export", "--budget", "w0.75-h9-d2", masked_lm, tmp_path / "one", "--budget", "1:12:2,0.5:12:1", "--json")
    )
    assert status == 0, error
    forms = {name: repo["form"] for name, repo in json.loads(output).items()}
    assert forms == {
        "w0.5-h12-d1": "stock",
        "w0.75-h9-d2": "stock_padded",
        "w1.0-h12-d2": "stock",
        "full": "remote_code",
    }
    (masked_lm / "curve.json").unlink()
    assert "| -2.500 |" in (tmp_path / "one" / "full" / "README.md").read_text()


def test_a_sentence_encoder_to_the_hub(command, hub, encoder, tmp_path):
    status, output, error = command("export", encoder, tmp_path / "family", "--license", "mit")
    assert status == 0, error
    assert output.count("stock") == 3 and output.count("remote code") == 1
    status, output, _ = command("push", tmp_path / "family", "me/demo")
    assert status == 0 and "me/demo-w0.25-h2-d1: got" in output
    for source in (tmp_path / "family", "me/demo"):
        status, output, _ = command("family", "show", source)
        header, _, first, *_ = output.splitlines()
        assert header.split()[:4] == ["level", "width", "heads", "layers"]
        assert "parameters" in header and "flops per token" in header and "macs" not in header
        assert first.split()[:5] == ["w0.25-h2-d1", "0.25", "2", "1", "128"]
        assert "Output widths: 4, 32" in output
    status, output, error = command("export", tmp_path / "family" / "full", tmp_path / "again")
    assert status == 2 and "brings the code of st_nested_transformer.NestedTransformer" in error
    assert "--trust-remote-code" in error
    arguments = ["--trust-remote-code", "--budgets", "0.5:2:2"]
    status, output, error = command("export", tmp_path / "family" / "full", tmp_path / "again", *arguments)
    assert status == 0, error
    assert type(SentenceTransformer(str(tmp_path / "again" / "w0.5-h2-d2"))[0].model) is BertModel


def test_bad_input_is_one_sentence(command, masked_lm, encoder, tiny_sentence_transformer, tmp_path):
    out = tmp_path / "out"
    damaged = tmp_path / "damaged"
    save_self_contained(SentenceTransformer(tiny_sentence_transformer), damaged)
    invalid = tmp_path / "invalid"
    shutil.copytree(masked_lm / "model", invalid)
    config = json.loads((invalid / "config.json").read_text())
    (invalid / "config.json").write_text(json.dumps(config | {"budgets": [[0.5, 9, 9], [1.0, 12, 2]]}))
    trained = "w0.5-h12-d1, w0.75-h9-d2, w1.0-h12-d2"
    for arguments, message in [
        (
            (masked_lm, out, "--format", "stock"),
            "level w0.75-h9-d2 has 9 heads of width 8, but a BertForMaskedLM of hidden size 96 has 12 of them; "
            "padded with zeros it can be stock",
        ),
        (
            (encoder, out, "--budgets", "0.5:2:2", "0.3:1:1"),
            f"budget 0.3:1:1 was not trained; the levels of {encoder / 'model'} are 0.25:2:1, 0.5:2:2, 1:2:2",
        ),
        ((masked_lm, out, "--budgets", "0.5:6"), f"'0.5:6' is no budget; write width:heads:layers .*: {trained}"),
        ((masked_lm, out, "--budgets", "2:12:2"), "'2:12:2' is no budget"),
        ((masked_lm, out, "--dims", "16"), "--dims is for adaptors and funnels, but .* name levels with --budgets"),
        ((masked_lm, out, "--vectors-only"), "--vectors-only is for adaptors"),
        ((tmp_path, out, "--budgets", "0.5:6:6"), "holds no encoder or decoder with levels; name the widths"),
        ((damaged, out), "holds a model of the type bert, which has no levels; export an adaptor, a funnel or a "),
        ((invalid, out), "budget w0.5-h9-d9 is not inside the last one w1.0-h12-d2, which must be the full size"),
    ]:
        status, output, error = command("export", *arguments)
        assert status == 2 and output == "" and error.startswith("Error: "), (arguments, error)
        assert error.count("\n") == 1 and not out.exists()
        assert re.search(message if ".*" in message else re.escape(message), error), error


def test_several_budgets_are_in_the_help(command):
    status, output, _ = command("export", "--help")
    assert status == 0 and "--budgets" in output
    assert "several after one flag" in " ".join(output.replace("│", " ").split())
