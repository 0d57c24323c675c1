"""Exports of decoders in a process that does not have this package."""

import json
import os
import subprocess
import sys

import pytest
import torch

from hf_matryoshka.hub.export import export_level
from hf_matryoshka.surgery.combine import combine

from ..modeling import gpt_models, test_fractalformer
from ..surgery.test_combine import parts


# Run with a folder of exports as argument; prints the largest difference of logits, and whether texts are the same.
SCRIPT = """
import json, sys
from pathlib import Path

sys.modules["hf_matryoshka"] = None

import torch
from transformers import AutoModel, AutoModelForCausalLM

root, report = Path(sys.argv[1]), {}
for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
    name = folder.name
    expected = torch.load(root / f"{name}.pt", weights_only=True)
    for number in range(2):
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules")
        with torch.no_grad():
            for level, logits in expected["logits"].items():
                found = (model(expected["ids"], level=level).logits - logits).abs().max().item()
                report[f"{name} {number} {level}"] = found
        options = {"max_new_tokens": 8, "attention_mask": expected["mask"]}
        text = model.generate(expected["ids"], **options)
        report[f"{name} {number} text"] = float(not torch.equal(text, expected["text"]))
        if len(expected["logits"]) > 1:
            drafted = model.generate(expected["ids"], draft_level=0, **options)
            report[f"{name} {number} drafted"] = float(not torch.equal(drafted, expected["text"]))
        # Saved and loaded once more.
        model.save_pretrained(folder / "again")
        folder = folder / "again"
    base = AutoModel.from_pretrained(folder, trust_remote_code=True)
    report[f"{name} base"] = float(not hasattr(base, "embed_tokens"))
print(json.dumps(report))
"""


@torch.no_grad()
def test_decoders_run_from_their_own_code(tmp_path):
    models = {kind: gpt_models.make(kind) for kind in ("head_dim", "layers", "gpt2")}
    models |= {"fractal": test_fractalformer.make(), "combined": combine(parts(2))}
    for name, model in models.items():
        ids, mask = gpt_models.prompts()
        ids = ids % model.config.vocab_size
        export_level(model, None, tmp_path / name, format="remote_code")
        logits = {level: model(ids, level=level).logits for level in model.config.levels}
        text = model.generate(ids, attention_mask=mask, max_new_tokens=8)
        torch.save({"ids": ids, "mask": mask, "logits": logits, "text": text}, tmp_path / f"{name}.pt")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / ".modules"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    report = json.loads(run.stdout.splitlines()[-1])
    assert len(report) == 2 * sum(len(model.config.levels) + 2 for model in models.values()) - 2 + len(models)
    assert max(report.values()) <= 1e-5, {name: value for name, value in report.items() if value > 1e-5}


def test_a_combined_model_has_no_stock_form(tmp_path):
    with pytest.raises(ValueError, match="glue, which fold_glue takes away|no decoder of transformers has that"):
        export_level(combine(parts(2)), None, tmp_path / "out", format="stock")
