"""What a user has trained, from the folder that it is in."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .. import modeling
from ..evaluation.certificate import CERTIFICATE_FILE, Certificate
from ..modeling import MatryoshkaAdaptorModel, MatryoshkaFunnelModel
from ..modeling.budgets import Budget, BudgetsMixin
from ..modeling.configuration_matryoshka_gpt import MatryoshkaGPTConfig
from ..modeling.configuration_matryoshka_mamba import MatryoshkaMambaConfig
from ..modeling.levels import LevelsMixin
from ..modeling.st_matryoshka_mamba import mamba_sentence_encoder
from .progress import no_progress_bars


# The configs of nested text models.
LEVELED = (BudgetsMixin, MatryoshkaGPTConfig, MatryoshkaMambaConfig)
# The nested models of embeddings.
ON_VECTORS = (MatryoshkaAdaptorModel, MatryoshkaFunnelModel)


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
        return TrainedModel(folder, _load_sentence_encoder(folder, trust_remote_code), None, certificate)
    architecture = (config.get("architectures") or ["model of no class"])[0]
    if architecture not in heads:
        raise ValueError(f"{folder} holds a {architecture}, which is none of {', '.join(heads)}")
    tokenizer = None
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with no_progress_bars():
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
            with no_progress_bars():
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
            except (ValueError, TypeError):
                raise ValueError(f"{config} is no config of a model") from None
    return path, {}


def _load_sentence_encoder(folder: Path, trust_remote_code: bool) -> SentenceTransformer:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    # Modules of this package are named by their place in it, unless the folder brings its own copy of the code.
    own = ("sentence_transformers.", f"{modeling.__name__}.")
    foreign = [module["type"] for module in modules if not module["type"].startswith(own)]
    if foreign and not trust_remote_code:
        raise ValueError(f"{folder} brings the code of {foreign[0]}; read it, then allow it with --trust-remote-code")
    with no_progress_bars():
        return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True).eval()


def _shown(entry: list) -> str:
    width, heads, depth = entry
    return Budget.parse(entry).name if isinstance(width, list) else f"{width:g}:{heads}:{depth}"
