"""What a user has trained, from the folder that it is in."""

import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .. import modeling
from ..data.files import reading_weights
from ..evaluation.certificate import CERTIFICATE_FILE, Certificate
from ..modeling import MatryoshkaAdaptorModel, MatryoshkaFunnelModel
from ..modeling.budgets import Budget, BudgetsMixin
from ..modeling.configuration_matryoshka_gpt import MatryoshkaGPTConfig
from ..modeling.configuration_matryoshka_mamba import MatryoshkaMambaConfig
from ..modeling.levels import LevelsMixin
from ..modeling.st_matryoshka_mamba import mamba_sentence_encoder
from .inside import check_inside
from .progress import no_progress_bars


# The configs of nested text models.
LEVELED = (BudgetsMixin, MatryoshkaGPTConfig, MatryoshkaMambaConfig)
# The nested models of embeddings.
ON_VECTORS = (MatryoshkaAdaptorModel, MatryoshkaFunnelModel)
_OWN_MODULE = re.compile(rf"(?:sentence_transformers|{re.escape(modeling.__name__)})(?:\.\w+)+", re.ASCII)


@dataclass(frozen=True)
class TrainedModel:
    """A nested encoder or decoder of texts, ready for [`export_family`].

    Args:
        folder (`Path`): Where it was found.
        model (`PreTrainedModel` or `SentenceTransformer`): The model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): That of a model with a head; a `SentenceTransformer` has its
            own.
        certificate ([`Certificate`], *optional*): That of a certified run, for the cards.
    """

    folder: Path
    model: PreTrainedModel | SentenceTransformer
    tokenizer: PreTrainedTokenizerBase | None
    certificate: Certificate | None = None

    @property
    def config(self) -> LevelsMixin:
        """The config of the nested model."""
        return self.model[0].model.config if isinstance(self.model, SentenceTransformer) else self.model.config

    def level(self, budget: str) -> str:
        """Name of a level given by name, or as `width:heads:depth`.

        Raises:
            ValueError: If it is no budget, or was not trained; the message lists those that were.
        """
        if budget in self.config.levels:
            return budget
        if not isinstance(self.config, BudgetsMixin):
            raise ValueError(
                f"level {budget!r} was not trained; the levels of {self.folder} are {', '.join(self.config.levels)}"
            )
        try:
            width, heads, depth = budget.split(":")
            wanted = Budget.parse([float(width), int(heads), int(depth)])
        except ValueError:
            raise ValueError(
                f"{budget!r} is no budget; write width:heads:layers such as 0.5:6:6, or the name of a level: "
                f"{', '.join(self.config.levels)}"
            ) from None
        if wanted.name not in self.config.levels:
            raise ValueError(
                f"budget {budget} was not trained; the levels of {self.folder} are "
                f"{', '.join(_shown(entry) for entry in self.config.budgets)}"
            )
        return wanted.name


def load_trained_model(path: str | os.PathLike, trust_remote_code: bool = False) -> TrainedModel | None:
    """The nested encoder or decoder of a folder or of a run's `model/`; `None` for an adaptor, a funnel, or no model
    at all.

    Args:
        path (`str` or `os.PathLike`): The folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether the code of a self-contained repo may run;
            needed only for one with modules of sentence-transformers.

    Raises:
        ValueError: If the folder holds another kind of model, code that was not trusted, or a certificate that cannot
            be read.
    """
    folder, config = _read_config(Path(path))
    if config.get("model_type") in (None, *(kind.config_class.model_type for kind in ON_VECTORS)):
        return None
    heads = {
        name: kind
        for name, kind in vars(modeling).items()
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel) and issubclass(kind.config_class, LEVELED)
    }
    if config["model_type"] not in {kind.config_class.model_type for kind in heads.values()}:
        raise ValueError(
            f"{folder} holds a model of the type {config['model_type']}, which has no levels; export an adaptor, a "
            f"funnel or a {', '.join(heads)}"
        )
    file = Path(path) / CERTIFICATE_FILE
    certificate = Certificate.from_json(file) if file.is_file() else None
    if (folder / "modules.json").is_file():
        return TrainedModel(folder, load_sentence_encoder(folder, trust_remote_code), None, certificate)
    architecture = (config.get("architectures") or ["model of no class"])[0]
    if architecture not in heads:
        raise ValueError(f"{folder} holds a {architecture}, which is none of {', '.join(heads)}")
    tokenizer = None
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with no_progress_bars(), reading_weights(folder):
        model = heads[architecture].from_pretrained(folder).eval()
        if isinstance(model.config, MatryoshkaMambaConfig) and tokenizer is not None:
            model, tokenizer = mamba_sentence_encoder(model, tokenizer), None
    return TrainedModel(folder, model, tokenizer, certificate)


def load_vector_model(path: str | os.PathLike) -> MatryoshkaAdaptorModel | MatryoshkaFunnelModel:
    """The adaptor or funnel of a folder: a saved one, an exported repo, or the run that trained it.

    Raises:
        FileNotFoundError: If the folder holds neither.
        ValueError: If its config cannot be read.
    """
    folder, config = _read_config(Path(path))
    for kind in ON_VECTORS:
        if config.get("model_type") == kind.config_class.model_type:
            with no_progress_bars(), reading_weights(folder):
                return kind.from_pretrained(folder).eval()
    raise FileNotFoundError(
        f"{path} holds no adaptor and no funnel; give the folder of a run, or of a saved MatryoshkaAdaptorModel or "
        "MatryoshkaFunnelModel"
    )


def _read_config(path: Path) -> tuple[Path, dict]:
    """Folder and `config.json` of a model, which lies at `path` or in `path/model`; an empty one if there is none."""
    for folder in (path, path / "model"):
        config = folder / "config.json"
        if config.is_file():
            try:
                return folder, dict(json.loads(config.read_text(encoding="utf-8")))
            except (ValueError, TypeError, RecursionError):
                raise ValueError(f"{config} is no config of a model") from None
    return path, {}


def load_sentence_encoder(folder: Path, trust_remote_code: bool = False) -> SentenceTransformer:
    """A saved sentence encoder; unless it is trusted, only code of this package and of sentence-transformers runs.

    sentence-transformers itself takes modules of another package only together with any code that the folder brings.

    Args:
        folder (`Path`): Where it was saved.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether code of the folder may run.

    Raises:
        ValueError: If its modules cannot be read, lie outside of the folder, or are code that was not trusted.
    """
    with no_progress_bars(), reading_weights(folder):
        if trust_remote_code:
            return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True).eval()
        entries = _read_json(folder / "modules.json", list)
        try:
            places = [(entry["type"], entry["path"], entry.get("kwargs", [])) for entry in entries]
            modules = [_module_class(folder, kind) for kind, _, _ in places]
            check_inside(folder, [place for _, place, _ in places])
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"{folder / 'modules.json'} is no list of modules") from None
        loaded = [
            cls.load(str(folder), subfolder=place, local_files_only=True, trust_remote_code=False)
            for cls, (_, place, _) in zip(modules, places, strict=True)
        ]
        settings = folder / "config_sentence_transformers.json"
        found = _read_json(settings, dict) if settings.is_file() else {}
        names = ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
        options = {name: found[name] for name in names if found.get(name) is not None}
        model = SentenceTransformer(modules=loaded, device="cpu", **options)
        if any(given for _, _, given in places):
            model.module_kwargs = {str(number): given for number, (_, _, given) in enumerate(places)}
        return model.eval()


def _module_class(folder: Path, kind: str) -> type[nn.Module]:
    """A class by its place in this package or in sentence-transformers."""
    place, _, name = kind.rpartition(".")
    # Modules of this package are named by their place in it, unless the folder brings its own copy of the code.
    if not _OWN_MODULE.fullmatch(kind):
        raise ValueError(f"{folder} brings the code of {kind}; read it, then allow it with --trust-remote-code")
    found = getattr(importlib.import_module(place), name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise TypeError
    return found


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"{path} is no JSON {kind.__name__}")
    return value


def _shown(entry: list) -> str:
    width, heads, depth = entry
    return Budget.parse(entry).name if isinstance(width, list) else f"{width:g}:{heads}:{depth}"
