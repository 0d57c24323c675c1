"""Repos that bring the code of their modules along."""

import json

import numpy as np
from sentence_transformers import SentenceTransformer

from hf_matryoshka.hub.self_contained import append_modules, save_self_contained
from hf_matryoshka.modeling.st_matryoshka_truncate import MatryoshkaTruncate


TEXTS = ["a cat", "the large river in the city"]


def load(folder):
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)


def test_a_truncated_model_survives_loads_and_saves(tmp_path, base):
    model = append_modules(base, [MatryoshkaTruncate([4, 8], 4)])
    save_self_contained(model, tmp_path / "0")
    for number in (1, 2):
        load(tmp_path / str(number - 1)).save_pretrained(str(tmp_path / str(number)))
    for number in (0, 1, 2):
        folder = tmp_path / str(number)
        types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
        assert types[-1] == "st_matryoshka_truncate.MatryoshkaTruncate"
        assert (folder / "st_matryoshka_truncate.py").is_file() and (folder / "levels.py").is_file()
        loaded = load(folder)
        np.testing.assert_allclose(loaded.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
        np.testing.assert_allclose(
            loaded.encode(TEXTS, matryoshka_dim=8), model.encode(TEXTS, matryoshka_dim=8), atol=1e-6
        )


def test_append_modules_keeps_prompts_and_shares_modules(base):
    model = append_modules(base, [MatryoshkaTruncate([4, 8])])
    assert model.prompts["query"] == "the question "
    assert model[0] is base[0] and len(base) == 3
