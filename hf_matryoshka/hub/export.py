"""One level of a trained adaptor as a Hub repo."""

import copy
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.st_matryoshka_adaptor import MatryoshkaAdaptor
from .cards import PLOT_FILE, CardDetails, adaptor_card
from .dense import dense_layers
from .exported_level import ExportedLevel
from .gate import check_export
from .output_folder import check_output_dir, staged_folder
from .progress import no_progress_bars
from .self_contained import append_modules, save_adaptor_in_root


if TYPE_CHECKING:
    from ..evaluation.curve import Curve


def export_level(
    model: MatryoshkaAdaptorModel,
    level: int | str | None,
    output_dir: str | os.PathLike,
    *,
    base_model: SentenceTransformer | str | os.PathLike | None = None,
    stock: bool | str = "auto",
    overwrite: bool = False,
    base_model_id: str | None = None,
    license: str | None = None,
    curves: Sequence["Curve"] = (),
    plot: str | os.PathLike | None = None,
    tags: Sequence[str] = (),
) -> ExportedLevel:
    """Write a level as a repo, load it back, and compare it with the trained model.

    A *stock* repo is the base model followed by plain `Dense` modules: `SentenceTransformer(output_dir)` loads it with
    no remote code and gives embeddings of this width. A *remote-code* repo holds the adaptor with all levels up to
    this one, and its code: `AutoModel.from_pretrained(output_dir, trust_remote_code=True)` gives the adaptor and, if
    there is a base model, `SentenceTransformer(output_dir, trust_remote_code=True)` the whole. Neither needs this
    package.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor.
        level (`int`, `str` or `None`): The level, `None` for the largest.
        output_dir (`str` or `os.PathLike`): A new or empty folder, or an earlier export, which is replaced. Nothing
            appears there unless the comparison succeeds.
        base_model (`SentenceTransformer`, `str` or `os.PathLike`, *optional*): The model whose embeddings the adaptor
            was trained on, or the folder it is saved in. Without it (vectors from an API), the repo is the adaptor.
        stock (`bool` or `"auto"`, *optional*, defaults to `"auto"`): Whether to write a stock repo; by default
            wherever one is exact.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not an earlier export.
        base_model_id (`str`, *optional*): Hub id of the base model for the card; by default that of the adaptor's
            config, unless it is a local folder.
        license (`str`, *optional*): License id for the card.
        curves (`Sequence[Curve]`, *optional*): Measured quality for the card.
        plot (`str` or `os.PathLike`, *optional*): PNG for the card.
        tags (`Sequence[str]`, *optional*): Further tags for the card.

    Returns:
        [`ExportedLevel`]: What was written.

    Raises:
        ValueError: If the level does not exist, a stock repo is not exact, or the base model does not fit.
        FileNotFoundError: If the base model or the plot does not exist.
        FileExistsError: If the folder holds other files.
        OSError: If the folder cannot be written.
        ExportError: If what was written does not compute what the trained model computes.
    """
    name = None if level is None else model.config.level_name(level)
    details = card_details(model, base_model_id, license, curves, plot, tags)
    check_output_dir(output_dir, overwrite)
    base = load_base(base_model, model)
    layers = _stock_layers(model, name, base, stock)
    # On the CPU and in evaluation mode, without touching the caller's model.
    trained = copy.deepcopy(model).cpu().eval()
    config = model.config
    with staged_folder(output_dir) as folder, no_progress_bars():
        if layers is not None:
            dims = [config.level_dim(name)]
            _save_stock(base, layers, folder)
        else:
            dims = config.matryoshka_dims[: config.level_index(name) + 1]
            _save_remote_code(base, trained.cut(name), folder)
        exported = ExportedLevel(
            folder=Path(output_dir),
            level=config.level_name(name),
            matryoshka_dims=dims,
            stock=layers is not None,
            with_base=base is not None,
            max_difference=check_export(folder, trained, dims, base, stock=layers is not None),
        )
        exported.write_record(folder)
        adaptor_card(
            model,
            name,
            stock=exported.stock,
            with_base=exported.with_base,
            max_difference=exported.max_difference,
            details=details,
        ).save(folder / "README.md")
        if plot is not None:
            shutil.copyfile(plot, folder / PLOT_FILE)
    return exported


def load_base(
    base_model: SentenceTransformer | str | os.PathLike | None, model: MatryoshkaAdaptorModel
) -> SentenceTransformer | None:
    """The base model, loaded if it is a folder.

    Raises:
        FileNotFoundError: If it is a path but no folder.
        ValueError: If its embeddings do not have the adaptor's width.
    """
    if base_model is None:
        return None
    if not isinstance(base_model, SentenceTransformer):
        if not Path(base_model).is_dir():
            raise FileNotFoundError(
                f"base_model {base_model} is not a folder; give a saved SentenceTransformer or a loaded one"
            )
        base_model = SentenceTransformer(str(base_model), device="cpu", local_files_only=True)
    if base_model.truncate_dim is not None:
        raise ValueError(
            f"base_model has truncate_dim={base_model.truncate_dim}, which an export cannot hold between its modules; "
            "load it without"
        )
    width = base_model.get_embedding_dimension()
    if width not in (None, model.config.embedding_dim):
        raise ValueError(
            f"base_model gives embeddings of width {width}, but the adaptor takes {model.config.embedding_dim}"
        )
    return base_model


def card_details(model, base_model_id, license, curves, plot, tags) -> CardDetails:
    """The arguments of an export that concern its card; raises `FileNotFoundError` if there is no such plot."""
    if plot is not None and not Path(plot).is_file():
        raise FileNotFoundError(f"plot {plot} does not exist")
    if base_model_id is None and model.config.base_model is not None:
        # A path means nothing to the reader of a card.
        known = model.config.base_model
        base_model_id = known if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", known) and not Path(known).exists() else None
    return CardDetails(base_model=base_model_id, license=license, curves=curves, plot=plot, tags=tags)


def _stock_layers(model, level, base, stock):
    """Dense layers of a stock export, or `None` for a remote-code one."""
    if stock not in (True, False, "auto"):
        raise ValueError(f"stock must be True, False or 'auto', but is {stock!r}")
    if stock is True and base is None:
        raise ValueError("a stock export takes texts, so it needs base_model; without one use stock=False")
    if stock is False or base is None:
        return None
    try:
        return dense_layers(model, level)
    except ValueError:
        if stock is True:
            raise
        return None


def _save_stock(base, layers, folder) -> None:
    modules = [
        Dense(
            layer.weight.shape[1],
            layer.weight.shape[0],
            bias=layer.bias is not None,
            activation_function=layer.activation,
            init_weight=layer.weight,
            init_bias=layer.bias,
        )
        for layer in layers
    ]
    append_modules(base, [*modules, Normalize()]).save(str(folder), create_model_card=False)


def _save_remote_code(base, adaptor, folder) -> None:
    if base is None:
        adaptor.save_pretrained(folder)
    else:
        save_adaptor_in_root(base, MatryoshkaAdaptor(adaptor), folder)
