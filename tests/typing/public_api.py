"""What a type checker sees of the main public calls: `make quality` checks this file, nothing runs it.

A `type: ignore` that nothing needs is an error, so those below say what has to be found.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch

import hf_matryoshka
from hf_matryoshka import (
    AdaptorVectors,
    Curve,
    DeltaBertConfig,
    DeltaBertForMaskedLM,
    DeltaBertModel,
    Family,
    MatryoshkaAdaptorConfig,
    MatryoshkaAdaptorModel,
    MatryoshkaMambaModel,
    evaluate_levels,
    export_family,
    export_level,
    load_beir,
    load_family,
    select_level,
    train_adaptor,
)
from hf_matryoshka.hub.manifest import FamilyRepo


def trains_and_exports(folder: Path) -> None:
    dataset = load_beir(folder)
    vectors = AdaptorVectors.from_dataset(dataset, "sentence-transformers/all-MiniLM-L6-v2")
    adaptor = train_adaptor(vectors, folder / "run").model
    assert_type(adaptor, MatryoshkaAdaptorModel)
    assert_type(adaptor.config.levels, tuple[str, ...])
    assert_type(adaptor.cost("d64"), dict[str, int])
    assert_type(adaptor.cut("d64"), MatryoshkaAdaptorModel)
    assert_type(export_level(adaptor, "d64", folder / "d64"), FamilyRepo)
    family = export_family(adaptor, folder / "family", levels=["d64", 0])
    assert_type(family, Family)
    assert_type(family.select(min_quality=0.95), str)
    load_beir(64)  # type: ignore[arg-type]
    train_adaptor(vectors)  # type: ignore[call-arg]
    export_family(adaptor, folder, levels=64)  # type: ignore[arg-type]
    family.select(min_quality="0.95")  # type: ignore[arg-type]


def loads(path: str) -> None:
    assert_type(load_family(path), Family)
    assert_type(select_level(path, max_latency_ms=5), str)
    assert_type(MatryoshkaMambaModel.from_pretrained(path, level="w0.5"), MatryoshkaMambaModel)
    assert_type(hf_matryoshka.__version__, str)
    print(hf_matryoshka.load_famly)  # type: ignore[attr-defined]
    load_family(path, revison="main")  # type: ignore[call-arg]


def evaluates(model: str, transform: np.ndarray) -> None:
    found = evaluate_levels(model, ["SciFact"], levels=[64, "d128"])
    curve = found if isinstance(found, Curve) else found["SciFact"]
    assert_type(curve.autc(), float)
    assert_type(curve.select(max_memory_mb=10, num_vectors=1000), str)
    assert_type(Curve.from_json(model), Curve)
    evaluate_levels(model, ["SciFact"], transform=transform)  # type: ignore[arg-type]


def computes(ids: torch.Tensor) -> None:
    config = DeltaBertConfig(budgets=[[0.5, 2, 2], [1.0, 4, 4]])
    assert_type(config.cut(0), DeltaBertConfig)
    assert_type(config.level_name(None), str)
    assert_type(DeltaBertForMaskedLM(config).cut("w0.5-h2-d2"), DeltaBertForMaskedLM)
    DeltaBertModel(config).forward(ids, level="w0.5-h2-d2")
    MatryoshkaAdaptorConfig(embedding_dim=32).level_index([0])  # type: ignore[arg-type]
