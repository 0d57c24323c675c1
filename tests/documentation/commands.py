"""Command lines are read by the real parser, and stop before their work begins."""

import shlex
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import typer

from hf_matryoshka.cli.app import app
from hf_matryoshka.recipes import (
    adaptor_stage,
    delta_model,
    gpt_model,
    train_adaptor,
    train_delta,
    train_delta_embedding,
    train_funnel,
    train_gpt,
    train_mamba,
)
from hf_matryoshka.recipes.ablation_plan import read_ablation
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors
from hf_matryoshka.recipes.training_run import run_arguments
from hf_matryoshka.trainers.adaptor_arguments import AdaptorTrainingArguments
from hf_matryoshka.trainers.delta_arguments import DeltaTrainingArguments
from hf_matryoshka.trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments
from hf_matryoshka.trainers.hierarchy_arguments import HierarchyTrainingArguments
from hf_matryoshka.trainers.mamba_arguments import MambaTrainingArguments


class Accepted(Exception):
    """A command got as far as its work."""


def check_adaptor(_, recipe, training):
    adaptor_stage.stage_arguments(Path("run"), "unsupervised", 1, recipe, training)


def check_delta(recipe, training):
    train_delta.delta_arguments(Path("run"), recipe, training)
    if recipe.pretokenized_path is None:  # else the rows say how long they are
        delta_model.build_config(recipe, None)


def check_delta_embedding(recipe, training):
    train_delta_embedding.embedding_arguments(Path("run"), recipe, training)


def check_funnel(recipe, training):
    run_arguments(FunnelTrainingArguments, Path("run"), recipe, training, **train_funnel.DEFAULTS)
    train_funnel.build_config(recipe, 768)


def check_gpt(recipe, training):
    train_gpt.gpt_arguments(Path("run"), recipe, training)
    gpt_model.build_config(recipe, None)


def check_mamba(recipe, training):
    train_mamba.mamba_arguments(Path("run"), recipe, training)


# What a training command calls, and what stands in for it: all checks that need no data.
TRAININGS = {
    (train_adaptor, "train_adaptor"): check_adaptor,
    (train_delta, "train_delta"): check_delta,
    (train_delta_embedding, "train_delta_embedding"): check_delta_embedding,
    (train_funnel, "train_funnel"): check_funnel,
    (train_gpt, "train_gpt"): check_gpt,
    (train_mamba, "train_mamba"): check_mamba,
}


ARGUMENTS = (
    AdaptorTrainingArguments,
    DeltaTrainingArguments,
    DeltaEmbeddingTrainingArguments,
    FunnelTrainingArguments,
    HierarchyTrainingArguments,
    MambaTrainingArguments,
)
TRAINING_FLAGS = {item.name for arguments in ARGUMENTS for item in fields(arguments)}


def stop_before_work(monkeypatch) -> None:
    """Replaces what training commands call."""
    for (module, name), check in TRAININGS.items():

        def stand_in(*arguments, training, overwrite, check=check):
            check(*arguments[:1], *[a for a in arguments[2:] if a is not None], training)
            raise Accepted

        monkeypatch.setattr(module, name, stand_in)
    monkeypatch.setattr("hf_matryoshka.data.beir.load_beir", lambda path: SimpleNamespace())
    monkeypatch.setattr("hf_matryoshka.data.vectors.load_vectors", lambda path: None)
    for name in ("from_dataset", "from_vectors", "__init__"):
        monkeypatch.setattr(AdaptorVectors, name, lambda *args, **kwargs: None)


def parse(line: str, placeholders: bool = False) -> None:
    """Reads one command line; those that train also read their YAML file and check every value.

    Args:
        line (`str`): It begins with `hf-matryoshka`.
        placeholders (`bool`, *optional*, defaults to `False`): Whether words stand for files and arguments, and what
            is required may be missing.

    Raises:
        click.UsageError: If there is no such command or option, or a value has the wrong form.
        ValueError: If a recipe or a trainer refuses a value.
    """
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    names = []
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        names.append(words[0])
        if words[0] not in command.commands:
            raise ValueError(f"there is no command hf-matryoshka {' '.join(names)}")
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and (placeholders or not words):
        return  # the name of a group, such as `hf-matryoshka train`
    if names[:1] == ["train"] and not placeholders:
        try:
            command.main(words, prog_name=" ".join(["hf-matryoshka", *names]), standalone_mode=False)
        except Accepted:
            return
        raise AssertionError(f"{line} trained")
    if placeholders:
        for parameter in command.params:
            parameter.required = False
    elif names == ["ablate"]:
        read_ablation(words[0])
    context = command.make_context(" ".join(["hf-matryoshka", *names]), words)
    unknown = [word for word in context.args if word.startswith("--") and word[2:].split("=")[0] not in TRAINING_FLAGS]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}")
