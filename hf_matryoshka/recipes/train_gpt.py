"""Training a Matryoshka GPT from texts, or from a Llama."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..data.causal_collator import CausalCollator
from ..data.hierarchy_file import read_hierarchy
from ..data.token_windows import Streams
from ..evaluation.next_token import next_token_curve
from ..evaluation.token_tree import nested_clusters
from ..modeling import FractalFormerConfig, MatryoshkaGPTForCausalLM
from ..trainers.fractal_trainer import FractalTrainer
from ..trainers.glue_trainer import GlueTrainer
from ..trainers.gpt_arguments import MatryoshkaGPTTrainingArguments
from ..trainers.gpt_trainer import MatryoshkaGPTTrainer
from ..trainers.hierarchy_arguments import HierarchyTrainingArguments
from ..trainers.hierarchy_trainer import EmergentGroups, HierarchyTrainer
from ..trainers.level_sampler import LevelSampler
from .fractal_recipe import FractalRecipe
from .gpt_corpus import check_rows, open_corpus, own_tokenizer
from .gpt_model import build_config, build_model, find_tokenizer, levels_of, load_base
from .gpt_recipe import GPTRecipe
from .run_folder import CURVE_FILE, finish_run, is_finished, load_report, load_text_model, open_run
from .training_run import run_arguments, run_key, run_training


# Defaults of the arguments, from scratch and from a checkpoint; `training` overrides them.
LEARNING_RATES = {False: 1e-3, True: 1e-4}
DEFAULTS = {
    "max_steps": 2000,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "weight_decay": 0.1,
    "adam_beta2": 0.99,
}


@dataclass
class TrainedGPT:
    """A Matryoshka GPT and how it came about.

    Args:
        model ([`MatryoshkaGPTForCausalLM`]): The model, in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        report (`dict`): Steps, seconds, tokens, and the held-out loss of each level before and after.
    """

    model: MatryoshkaGPTForCausalLM
    tokenizer: PreTrainedTokenizerBase
    report: dict[str, Any]


def train_gpt(
    recipe: GPTRecipe,
    output_dir: str | Path,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedGPT:
    """Trains a decoder at all its levels; an interrupted call with the same arguments goes on.

    Args:
        recipe ([`GPTRecipe`] or [`FractalRecipe`]):
            What to train on, and which model.
        output_dir (`str` or `Path`):
            Gets `model/` (with the tokenizer), `training.json` (the report), `curve.json` (held-out quality of each
            level) and the checkpoints.
        training (`dict`, *optional*):
            Further [`MatryoshkaGPTTrainingArguments`].
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedGPT`].

    Raises:
        ValueError: If an argument has no valid value, sizes do not nest, the texts are too short, or `output_dir`
            holds another run.
        OSError: If something cannot be read, or `output_dir` cannot be written.
    """
    training = dict(training or {})
    args = gpt_arguments(Path(output_dir) / "checkpoints", recipe, training)
    if recipe.distil_from_base and not args.kd_weight:
        raise ValueError("distil_from_base needs kd_weight above 0: how much of a level's loss is the distillation")
    if recipe.hierarchy:
        read_hierarchy(recipe.hierarchy)
    tokenizer = find_tokenizer(recipe)
    config, base = build_config(recipe, tokenizer), load_base(recipe, tokenizer)
    # What would be refused only after the texts are tokenised.
    LevelSampler(len(levels_of(recipe, config, base)), args)
    if recipe.glue_only and not getattr(base.config, "glue", False):
        raise ValueError(f"{recipe.base_model_path!r} has no glue to train; make one with hf-matryoshka combine")
    corpus = open_corpus(recipe)
    folder = open_run(output_dir, run_key(recipe, training, [corpus.digest.hexdigest()]), overwrite)
    if is_finished(folder):
        return load_run(folder)

    progress = not args.disable_tqdm
    if tokenizer is None:
        tokenizer = own_tokenizer(folder / "tokenizer", corpus, recipe, progress)
        config = build_config(recipe, tokenizer)
    rows_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    rows, held_out = corpus.rows(tokenizer, folder / "data", args.max_steps * rows_a_step, progress)
    check_rows(rows, rows_a_step)
    collator = CausalCollator(tokenizer.pad_token_id)
    trainer = build_trainer(
        recipe,
        tokenizer,
        model=build_model(recipe, config, base, rows),
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=collator,
        teacher=base if recipe.distil_from_base else None,
    )
    report = {"recipe": asdict(recipe), "training": training, **run_training(trainer, "language model")}
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    if held_out is not None:

        def batches(rows: Dataset) -> DataLoader:
            return DataLoader(rows, args.per_device_eval_batch_size, collate_fn=collator)

        def of_level(level: str) -> DataLoader:
            return batches(held_out.of(streams_of(model.config, level)))

        own = of_level if isinstance(held_out, Streams) else batches(held_out)
        next_token_curve(model, own, "heldout").to_json(folder / CURVE_FILE)
    finish_run(folder, report, model, tokenizer)
    return TrainedGPT(model, tokenizer, report)


def gpt_arguments(folder: Path, recipe: GPTRecipe, training: dict[str, Any]) -> MatryoshkaGPTTrainingArguments:
    """The arguments of a run.

    Raises:
        ValueError: If one has no valid value, or is about a hierarchy that there is not.
    """
    rate = LEARNING_RATES[recipe.base_model_path is not None]
    given = [name for name in training if name.startswith("hierarchy_")]
    if given and not recipe.has_hierarchy:
        raise ValueError(f"{given[0]} needs hierarchy (a file of groups of tokens) or emergent_widths")
    arguments = HierarchyTrainingArguments if recipe.has_hierarchy else MatryoshkaGPTTrainingArguments
    return run_arguments(arguments, folder, recipe, training, learning_rate=rate, **DEFAULTS)


def build_trainer(recipe: GPTRecipe, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> MatryoshkaGPTTrainer:
    """The trainer of a recipe; `settings` are its arguments.

    Raises:
        ValueError: If groups of tokens do not fit the model.
    """
    if isinstance(recipe, FractalRecipe):
        return StreamTrainer(**settings)
    if recipe.glue_only:
        return GlueTrainer(**settings)
    if not recipe.has_hierarchy:
        return MatryoshkaGPTTrainer(**settings)
    if recipe.hierarchy:
        return HierarchyTrainer(**settings, groups=read_hierarchy(recipe.hierarchy).group_ids(tokenizer.get_vocab()))
    cluster = clustering(recipe, tokenizer, settings["args"])
    start = cluster(settings["model"].get_input_embeddings().weight.detach().float().cpu())
    trainer = HierarchyTrainer(**settings, groups=start)
    trainer.add_callback(EmergentGroups(trainer, cluster))
    return trainer


def clustering(
    recipe: GPTRecipe, tokenizer: PreTrainedTokenizerBase, args: HierarchyTrainingArguments
) -> Callable[[torch.Tensor], dict[int, torch.Tensor]]:
    """How groups emerge from embeddings of shape `(vocab_size, hidden)`; special tokens, which no text has, are a
    group of their own."""
    counts = dict(zip(recipe.emergent_widths, recipe.emergent_clusters, strict=True))
    special = set(tokenizer.all_special_ids)

    def cluster(table: torch.Tensor) -> dict[int, torch.Tensor]:
        tokens = [number for number in range(len(table)) if number not in special]
        tree_width = table.shape[1] if args.hierarchy_tree == "whole" else None
        found = nested_clusters(table[tokens], counts, args.hierarchy_linkage, tree_width, args.hierarchy_centre)
        groups = {}
        for width, ids in found.items():
            groups[width] = torch.full((len(table),), int(ids.max()) + 1)
            groups[width][tokens] = torch.from_numpy(ids).to(groups[width].dtype)
        return groups

    return cluster


class StreamTrainer(FractalTrainer):
    """A [`FractalTrainer`] whose batches have all streams: the rows, which are random already, come in their order."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)


def streams_of(config: FractalFormerConfig, level: str) -> range:
    """The streams that a doll sees."""
    depth, place = config.place(level)
    share = config.children ** (config.depth - 1 - depth)
    return range(place * share, (place + 1) * share)


def load_run(folder: Path) -> TrainedGPT:
    """A finished run."""
    return TrainedGPT(*load_text_model(folder, AutoModelForCausalLM), load_report(folder))
