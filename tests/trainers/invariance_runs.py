"""One short run of every trainer, for any way to divide a step of eight rows."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer

from hf_matryoshka.data.adaptor_batches import AdaptorCollator, document_anchors, sample_anchors
from hf_matryoshka.data.embedding_rows import EmbeddingRows, collate_rows
from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.trainers.adaptor_arguments import AdaptorTrainingArguments
from hf_matryoshka.trainers.adaptor_trainer import AdaptorTrainer
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments
from hf_matryoshka.trainers.funnel_trainer import FunnelTrainer
from hf_matryoshka.trainers.glue_trainer import GlueTrainer
from hf_matryoshka.trainers.gpt_arguments import MatryoshkaGPTTrainingArguments

from ..modeling import funnel_models, gpt_models
from . import (
    dds_models,
    delta_runs,
    test_delta_embedding_trainer,
    test_fractal_trainer,
    test_gpt_trainer,
    test_hierarchy_trainer,
    test_mamba_trainer,
)


STEPS = 20
# How the eight rows of a step are divided in one process.
WHOLE = {"per_device_train_batch_size": 8}
ACCUMULATED = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
# In each of two processes.
SHARED = {"per_device_train_batch_size": 4}
# Within the third epoch of these runs, whose batches are random ones and such of one length.
RESUMED, RESUMED_RUNS = 10, ("delta", "delta_embedding")
SETTINGS = {"max_steps": STEPS, "learning_rate": 3e-3, "logging_steps": 1, "save_strategy": "no", "seed": 1}
SETTINGS |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True}


def delta(folder, **settings) -> Trainer:
    options = {"enable_mug": True, "enable_delta_depth": True, "alpha_kd": 2.0, "level_weights": [1.0, 1.0, 2.0]}
    return delta_runs.trainer(folder, data=delta_runs.rows(32), **options, **settings)


def delta_aligned(folder, **settings) -> Trainer:
    """Alignment is a mean over tokens, which a step weighs by labels: rows have as many of both."""
    return delta_runs.trainer(
        folder, data=_rows_of_equal_labels(), enable_cscf=True, level_sampling="random", **settings
    )


def _rows_of_equal_labels() -> Dataset:
    data = delta_runs.rows(32)
    labels = [[-100] * 7 + row[7:] for row in data["input_ids"]]
    return data.remove_columns("labels").add_column("labels", labels)


def delta_phases(folder, **settings) -> Trainer:
    """Without the delta residual, which is a ratio of sums over a micro-batch."""
    return delta_aligned(folder, enable_three_phase=True, enable_kd=True, **settings)


def delta_routed(folder, **settings) -> Trainer:
    """What a token gains is predicted, too: a mean over tokens."""
    model = delta_runs.make(token_routing=True)
    return delta_runs.trainer(folder, model, data=_rows_of_equal_labels(), enable_token_delta=True, **settings)


def dds(folder, **settings) -> Trainer:
    model = dds_models.with_dds(delta_runs.make("DeltaModernBert"), trained=False)
    return delta_runs.trainer(folder, model, data=delta_runs.rows(32), **settings)


def delta_embedding(folder, **settings) -> Trainer:
    model = test_delta_embedding_trainer.make_model()
    rows = _texts_of_another(model)
    options = {"level_sampling": "sandwich", "relational_weight": 0.0, "prefix_weight": 0.0}
    return test_delta_embedding_trainer.make_trainer(model, folder, rows, **options, **settings)


def _texts_of_another(model) -> list[dict]:
    """Targets away from what the model starts with: there the gradient is 0, and AdamW makes steps of its rounding."""
    rows = test_delta_embedding_trainer.make_rows(model, 32)
    for number, row in enumerate(rows):
        row["embedding"] = row["embedding"] + np.sin(np.arange(32) * (number + 1)).astype(np.float32) / 4
    return rows


def mamba(folder, **settings) -> Trainer:
    options = {"relational_weight": 0.0, "consistency_weight": 0.0, "contrastive_weight": 0.0}
    options |= {"level_sampling": "random", "levels_per_step": 1, "dim_curriculum": "top_down"}
    rows = test_mamba_trainer.make_rows(32)
    return test_mamba_trainer.make_trainer(folder, rows=rows, **options, **settings)


def delta_embedding_relational(folder, **settings) -> Trainer:
    model = test_delta_embedding_trainer.make_model()
    rows = _texts_of_another(model)
    options = {"relational_weight": 1.0, "prefix_weight": 0.5}
    return test_delta_embedding_trainer.make_trainer(model, folder, rows, **options, **settings)


def mamba_pairs(folder, **settings) -> Trainer:
    """All terms; only some texts have partners, so that processes have unlike numbers of texts."""
    rows = test_mamba_trainer.make_rows(32, pairs=True)
    for row in rows[5::3]:
        del row["pair_input_ids"], row["pair_embedding"]
    options = {"contrastive_weight": 0.5, "mse_weight": 0.5}
    return test_mamba_trainer.make_trainer(folder, rows=rows, **options, **settings)


def gpt(folder, **settings) -> Trainer:
    options = {"kd_weight": 0.3, "level_sampling": "sandwich", "levels_per_step": 1}
    return test_gpt_trainer.build(folder, data=test_gpt_trainer.rows(32), **options, **settings)


def glue(folder, **settings) -> Trainer:
    data = test_gpt_trainer.rows(32)
    return GlueTrainer(
        model=gpt_models.make("groups"),
        args=MatryoshkaGPTTrainingArguments(str(folder), **settings),
        train_dataset=data,
        data_collator=test_gpt_trainer.CausalCollator(0),
    )


def hierarchy(folder, **settings) -> Trainer:
    return test_hierarchy_trainer.build(folder, hierarchy_weight=0.5, **settings)


def fractal(folder, **settings) -> Trainer:
    """Every four rows have a row of each stream, and all are of one length."""
    return _fractal(folder, [0, 1, 2, 3] * 8, settings)


def fractal_apart(folder, **settings) -> Trainer:
    """Every four rows have streams of their own: a doll has rows in one micro-batch, or process, of a step only."""
    return _fractal(folder, [0, 0, 1, 1, 2, 3, 3, 3] * 4, settings)


def _fractal(folder, streams, settings) -> Trainer:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 100, (len(streams), 12), generator=generator).tolist()
    data = [{"input_ids": row, "stream": stream} for row, stream in zip(ids, streams, strict=True)]
    built = test_fractal_trainer.build(folder, data, **settings)
    built._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data)
    return built


def funnel(folder, kind="residual", **settings) -> Trainer:
    vectors = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    options = {"cascade_weight": 0.1, "likelihood_weight": 0.05, "latent_penalty_weight": 0.01}
    return FunnelTrainer(
        model=funnel_models.make(kind).train(),
        args=FunnelTrainingArguments(output_dir=str(folder), **options, **settings),
        train_dataset=EmbeddingRows(vectors, np.arange(32)),
        data_collator=collate_rows,
    )


def funnel_relational(folder, **settings) -> Trainer:
    return funnel(folder, relational_weight=0.2, decoded_relational_weight=0.1, **settings)


def flow(folder, **settings) -> Trainer:
    return funnel(folder, "flow", **settings)


def cascade(folder, **settings) -> Trainer:
    return funnel(folder, "cascade", **settings)


def adaptor(folder, **settings) -> Trainer:
    """The candidates of every batch are the whole corpus."""
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(32, 16)).astype(np.float32) * np.linspace(2, 0.3, 16, dtype=np.float32)
    sets = [document_anchors(corpus)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[2, 4, 16], kind="mlp")
        model = MatryoshkaAdaptorModel(config)
    options = {"topk_weight": 1.0, "pairwise_weight": 1.0, "anchor_weight": 1.0}
    return AdaptorTrainer(
        model=model,
        args=AdaptorTrainingArguments(output_dir=str(folder), **options, **settings),
        data_collator=AdaptorCollator(corpus, sets, random_candidates=32),
        train_dataset=sample_anchors(sets, 32),
    )


RUNS: dict[str, Callable[..., Trainer]] = {
    run.__name__: run
    for run in (
        adaptor,
        cascade,
        dds,
        delta,
        delta_aligned,
        delta_embedding,
        delta_embedding_relational,
        delta_phases,
        delta_routed,
        flow,
        fractal,
        fractal_apart,
        funnel,
        funnel_relational,
        glue,
        gpt,
        hierarchy,
        mamba,
        mamba_pairs,
    )
}


def run(name: str, folder: Path, **division) -> list[dict[str, float]]:
    """What each step logs of its losses."""
    trainer = RUNS[name](folder, **SETTINGS, **division)
    trainer.train()
    return logged(trainer)


def logged(trainer: Trainer) -> list[dict[str, float]]:
    rows = [row for row in trainer.state.log_history if "loss" in row]
    others = ("epoch", "step", "learning_rate", "grad_norm")
    return [{key: value for key, value in row.items() if key not in others} for row in rows]


def resume(name: str, folder: Path, **division) -> list[dict[str, float]]:
    """As [`run`], of a run that goes on from the checkpoint of another at step `RESUMED`."""
    settings = SETTINGS | {"save_strategy": "steps", "save_steps": RESUMED}
    RUNS[name](folder, **settings, **division).train()
    trainer = RUNS[name](folder / "again", **settings, **division)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{RESUMED}"))
    return logged(trainer)


def main() -> None:
    """In one of two processes: all runs, their logs to a file."""
    folder, output = map(Path, sys.argv[1:3])
    found = {name: run(name, folder / name, **SHARED) for name in RUNS}
    resumed = {name: resume(name, folder / f"{name}-resumed", **SHARED) for name in RESUMED_RUNS}
    if torch.distributed.get_rank() == 0:
        report = {"processes": torch.distributed.get_world_size(), "runs": found, "resumed": resumed}
        output.write_text(json.dumps(report))
