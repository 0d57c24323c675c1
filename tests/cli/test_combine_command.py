"""`hf-matryoshka combine`, the training of its glue, and `fold-glue`, as a user runs them."""

import json
import shutil

import torch

from hf_matryoshka.modeling import MatryoshkaGPTForCausalLM


def test_combine_train_the_glue_and_fold_it(command, tmp_path):
    options = ["--rows", "windows", "--tokenizer", "characters", "--max-length", 16, "--hidden-size", 16]
    options += ["--num-hidden-layers", 1, "--num_attention_heads", 2, "--doll_sizes", 16, "--use_cpu"]
    training = ["--max_steps", 10, "--learning_rate", 0.01, "--disable_tqdm", "True"]
    texts, runs = [], []
    for number, animal in enumerate(("cat", "ant")):
        texts.append(tmp_path / f"{animal}.txt")
        # The same characters in both.
        texts[-1].write_text(f"the {animal} can eat a nut at {animal} inn\n" * 40 + "cathenuiv\n")
        runs.append(tmp_path / f"run{number}")
        status, _, error = command("train", "gpt", runs[-1], "--texts", texts[-1], *options, *training)
        assert status == 0, error
    # One of them as a stock Llama.
    status, _, error = command("export", runs[1], tmp_path / "family")
    assert status == 0, error
    whole = tmp_path / "whole"
    status, output, error = command("combine", whole, runs[0], tmp_path / "family" / "d16", "--json")
    assert status == 0 and json.loads(output) == {"model": str(whole), "parts": 2, "hidden_size": 32}, error
    glue = ["--base_model_path", whole, "--glue-only", "--rows", "windows", "--max-length", 16, "--use_cpu"]
    status, _, error = command("train", "gpt", tmp_path / "glued", "--texts", *texts, *glue, *training)
    assert status == 0, error
    report = json.loads((tmp_path / "glued" / "training.json").read_text())
    assert report["after"]["d32"] < report["before"]["d32"]
    status, output, error = command("fold-glue", tmp_path / "glued", tmp_path / "folded", "--json")
    assert status == 0 and json.loads(output) == {"model": str(tmp_path / "folded")}, error
    paths = (runs[0] / "model", tmp_path / "family" / "full", whole, tmp_path / "glued" / "model", tmp_path / "folded")
    with torch.no_grad():
        ids = torch.arange(8)[None]
        one, two, start, glued, folded = (
            MatryoshkaGPTForCausalLM.from_pretrained(path).eval()(ids).logits for path in paths
        )
    torch.testing.assert_close(start, (one + two) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(folded, glued, rtol=0, atol=1e-4)
    assert (glued - start).abs().max() > 1e-3
    bare = tmp_path / "bare"
    shutil.copytree(runs[1] / "model", bare / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    for arguments, message in (
        (("combine", tmp_path / "a", runs[0], bare), "bare holds no decoder with its tokenizer"),
        (("combine", whole, *runs), "already exists and is not an empty folder"),
        (("combine", tmp_path / "a", runs[0]), "combine takes two models or more, but got 1"),
        (("combine", tmp_path / "a", runs[0], tmp_path / "none"), "cannot load a language model from"),
        (("fold-glue", tmp_path / "folded", tmp_path / "a"), "the model has no glue to fold"),
        (("fold-glue", tmp_path, tmp_path / "a"), "holds no combined decoder"),
        (
            ("train", "gpt", tmp_path / "a", "--texts", texts[0], *glue, "--base_model_path", tmp_path / "folded"),
            "has no glue to train; make one with hf-matryoshka combine",
        ),
    ):
        status, _, error = command(*arguments)
        assert status == 2 and message in error, error
    assert not (tmp_path / "a").exists()
