"""`hf-matryoshka train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.adaptor_recipe import AdaptorRecipe
from ..recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from ..recipes.delta_recipe import DeltaRecipe
from ..recipes.fractal_recipe import FractalRecipe
from ..recipes.funnel_recipe import FunnelRecipe
from ..recipes.gpt_recipe import GPTRecipe
from ..recipes.mamba_recipe import MambaRecipe
from .options import JsonFlag, lists_command, with_flags
from .train_delta import train_delta
from .train_funnel import train_funnel
from .train_gpt import train_fractal, train_gpt
from .train_mamba import train_mamba
from .train_options import ConfigFile, Overwrite, print_report, read_options


def add_training_commands(group: typer.Typer) -> None:
    """`train adaptor`, `delta`, `fractal`, `funnel`, `gpt`, `mamba`, with a flag for every field of the recipe and,
    read by transformers' own parser, for every training argument."""
    context = {"allow_extra_args": True, "ignore_unknown_options": True}
    for name, command, recipes in (
        ("adaptor", train_adaptor, [AdaptorRecipe]),
        ("delta", train_delta, [DeltaRecipe, DeltaEmbeddingRecipe]),
        ("fractal", train_fractal, [FractalRecipe]),
        ("funnel", train_funnel, [FunnelRecipe]),
        ("gpt", train_gpt, [GPTRecipe]),
        ("mamba", train_mamba, [MambaRecipe]),
    ):
        options: tuple[type, ...] = tuple(recipes)
        decorate = group.command(name, cls=lists_command(*options), context_settings=context)
        decorate(with_flags(command, *options))


def train_adaptor(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the adaptor will be in its model/ folder.")],
    beir: Annotated[Path | None, typer.Option(help="Texts and labels: a data set in BEIR format.")] = None,
    model: Annotated[
        str, typer.Option(help="Base model that encodes them: a folder or a Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    vectors: Annotated[
        Path | None,
        typer.Option(help="Vectors of the documents, from any model or API (.parquet, .arrow, .npy)."),
    ] = None,
    query_vectors: Annotated[
        Path | None, typer.Option(help="Vectors of the queries, in the order of --beir, which then gives the labels.")
    ] = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train an adaptor on a data set or on vectors; the same call resumes an interrupted run.

    Every field of AdaptorTrainingArguments (and so of transformers.TrainingArguments) is a flag too, for example
    --learning_rate 5e-4 --contrastive_weight 0.5. Flags win over the YAML file.

    Example: hf-matryoshka train adaptor runs/scifact --beir path/to/scifact
    """
    if beir is None and vectors is None:
        raise ValueError("give --beir (a data set) or --vectors (a file of vectors)")
    if (query_vectors is not None) != (beir is not None and vectors is not None):
        raise ValueError("labelled queries of your own vectors need all of --vectors, --query-vectors and --beir")
    from ..data.beir import load_beir
    from ..data.files import ensure_writable_folder
    from ..data.vectors import load_vectors
    from ..recipes.adaptor_vectors import AdaptorVectors
    from ..recipes.train_adaptor import train_adaptor as run
    from ..trainers.adaptor_arguments import AdaptorTrainingArguments

    recipe, training = read_options(context, config, flags, AdaptorRecipe, AdaptorTrainingArguments)
    dataset = None if beir is None else load_beir(beir)
    if dataset is None:
        assert vectors is not None
        found = AdaptorVectors(load_vectors(vectors))
    elif vectors is None or query_vectors is None:
        ensure_writable_folder(output)
        found = AdaptorVectors.from_dataset(dataset, model, seed=recipe.seed)
    else:
        found = AdaptorVectors.from_vectors(dataset, load_vectors(vectors), load_vectors(query_vectors))
    trained = run(found, output, recipe, training=training, overwrite=overwrite)
    print_report(trained.report, output / "model", json, _print_stages, "Adaptor")


def _print_stages(report: dict[str, Any]) -> None:
    for stage, result in report["stages"].items():
        print(f"{stage}: {result.get('best_step', 'all')} steps")
        for name, value in result.get("after", {}).items():
            print(f"  {name}: {result['before'][name]:.4f} -> {value:.4f} (held-out documents)")
