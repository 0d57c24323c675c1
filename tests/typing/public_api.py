"""What a type checker sees of the main public calls: `make quality` checks this file, nothing runs it.

A `type: ignore` that nothing needs is an error, so those below say what has to be found.
"""

from pathlib import Path
from typing import Any, assert_type

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
    FunnelRecipe,
    GPTRecipe,
    MatryoshkaAdaptorConfig,
    MatryoshkaAdaptorModel,
    MatryoshkaFunnelConfig,
    MatryoshkaFunnelModel,
    MatryoshkaGPTForCausalLM,
    MatryoshkaGPTTrainer,
    MatryoshkaGPTTrainingArguments,
    MatryoshkaMambaModel,
    SearchSpace,
    StagedLSBO,
    choose_draft,
    choose_gates,
    combine,
    evaluate_levels,
    export_family,
    export_level,
    fold_glue,
    grow,
    init_funnel,
    load_beir,
    load_family,
    make_optimizer,
    nest_decoder,
    optimize_funnel,
    select_level,
    train_adaptor,
    train_funnel,
    train_gpt,
)
from hf_matryoshka.evaluation.draft_choice import DraftChoice
from hf_matryoshka.hub.manifest import FamilyRepo
from hf_matryoshka.lsbo.optimizer import Optimizer
from hf_matryoshka.lsbo.trial import Trial


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


def trains_decoders(folder: Path, ids: torch.Tensor) -> None:
    trained = train_gpt(GPTRecipe(texts=["a.txt"]), folder, training={"max_steps": 10})
    model = trained.model
    assert_type(model, MatryoshkaGPTForCausalLM)
    assert_type(trained.report, dict[str, Any])
    assert_type(model.cut("d64"), MatryoshkaGPTForCausalLM)
    assert_type(model.cost("d64", sequence_length=64), dict[str, int])
    assert_type(nest_decoder(model, [32, 64]), MatryoshkaGPTForCausalLM)
    assert_type(choose_draft(model, ids, "d64"), DraftChoice)
    assert_type(choose_draft(model, ids).options, dict[str, Any])
    whole = combine([model, model], weights=[0.5, 0.5])
    assert_type(whole, MatryoshkaGPTForCausalLM)
    assert_type(fold_glue(whole), MatryoshkaGPTForCausalLM)
    assert_type(grow(DeltaBertModel(DeltaBertConfig()), hidden_size=1024), DeltaBertModel)
    arguments = MatryoshkaGPTTrainingArguments(str(folder), kd_weight=0.5)
    trainer = MatryoshkaGPTTrainer(model=model, args=arguments)
    assert_type(trainer.progress, float)
    assert_type(trainer.level_loss(model, {"input_ids": ids}, 0)[0], torch.Tensor)
    train_gpt(GPTRecipe(texts="a.txt"), folder)  # type: ignore[arg-type]
    combine([model, model], weights="mean")  # type: ignore[arg-type]
    grow(DeltaBertModel(DeltaBertConfig()), hidden_size="1024")  # type: ignore[arg-type]
    choose_draft(model, ids, level=[0])  # type: ignore[arg-type]
    trainer.level_loss(model, {"input_ids": ids}, "d64")  # type: ignore[arg-type]
    MatryoshkaGPTTrainingArguments(str(folder), kd_weight="0.5")  # type: ignore[arg-type]


def searches(folder: Path, vectors: np.ndarray) -> None:
    funnel = init_funnel(vectors, matryoshka_dims=[2, 4])
    assert_type(funnel, MatryoshkaFunnelModel)
    assert_type(train_funnel(FunnelRecipe(vectors="vectors.npy"), folder).model, MatryoshkaFunnelModel)
    assert_type(funnel.config.cut("d2"), MatryoshkaFunnelConfig)
    assert_type(funnel.encode(torch.from_numpy(vectors), level="d2"), torch.Tensor)
    assert_type(funnel.decode(torch.zeros(1, 4), active_dim=2), torch.Tensor)
    assert_type(choose_gates(funnel, vectors), dict[str, dict[str, float]])
    space = SearchSpace(funnel, bound=2)
    assert_type(space.dims, list[int])
    assert_type(space.decode(np.zeros((1, 4))), np.ndarray)
    search = StagedLSBO(space, maximize=True, trials=8, budgets=[4, 4], folder=folder)
    trials = search.ask(2)
    assert_type(trials, list[Trial])
    search.tell(trials[0], 0.5, variance=0.1)
    assert_type(search.best, Trial | None)
    assert_type(search.optimize(lambda embedding: float(embedding.sum()), q=2), Trial)
    assert_type(make_optimizer("random", space, maximize=False), Optimizer)
    assert_type(optimize_funnel(folder, "math:sqrt", folder, maximize=True), tuple[Optimizer, dict[str, Any]])
    init_funnel("vectors.npy")  # type: ignore[arg-type]
    SearchSpace(64)  # type: ignore[arg-type]
    StagedLSBO(space)  # type: ignore[call-arg]
    StagedLSBO(space, maximize=True, budgets=8)  # type: ignore[arg-type]
    search.tell(0, "0.5")  # type: ignore[arg-type]
    search.optimize(0.5)  # type: ignore[arg-type]
