"""A run of an optimiser over a funnel: objective by name, texts of a corpus, everything kept in one folder."""

import hashlib
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.convention_encoders import load_encoder
from ..data.scored_texts import read_scored_texts
from ..data.text_decoders.corpus_decoder import CorpusTextDecoder
from ..data.texts import read_texts
from ..lsbo.optimizer import Optimizer
from ..lsbo.optimizers import make_optimizer
from ..lsbo.report import save_report
from ..lsbo.search_space import SearchSpace
from ..modeling import MatryoshkaFunnelModel
from .run_folder import open_run
from .teacher_embeddings import teacher_embeddings
from .train_funnel import load_funnel


# Optimisers with a model of all trials, which known scores can begin.
LEARN_FROM_KNOWN = ("staged", "gp", "linear")


class CorpusTexts:
    """Texts of a file as what embeddings decode to; they are encoded when first asked for, and kept in the cache.

    Args:
        path (`str` or `Path`): What [`~data.texts.iter_texts`] reads.
        field (`str`): Field of the texts.
        funnel ([`MatryoshkaFunnelModel`]): Names the model whose embeddings it takes, and their convention.
        base_model (`str`, *optional*): Another place of that model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no text, or no model is named.
    """

    def __init__(self, path: str | Path, field: str, funnel: MatryoshkaFunnelModel, base_model: str | None = None):
        self.base_model, self.convention = base_model or funnel.config.base_model, funnel.config.embedding_convention
        if self.base_model is None:
            raise ValueError("the funnel names no model that could embed the corpus; give base_model")
        self.texts = list(dict.fromkeys(read_texts(path, field)))
        self._width = funnel.config.embedding_dim

    @cached_property
    def embeddings(self) -> np.ndarray:
        """Of shape `(texts, embedding_dim)`."""
        return self.embed(self.texts)

    def embed(self, texts: list[str]) -> np.ndarray:
        """Embeddings of any texts, `(texts, embedding_dim)`."""
        encoder = load_encoder(self.base_model, self.convention)
        if encoder.get_embedding_dimension() != self._width:
            raise ValueError(
                f"{self.base_model} gives embeddings of width {encoder.get_embedding_dimension()}, but the funnel "
                f"takes {self._width}"
            )
        return teacher_embeddings(encoder, texts)

    @cached_property
    def _decoder(self) -> CorpusTextDecoder:
        return CorpusTextDecoder(self.texts, self.embeddings, self.convention)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}

    def decode(self, embeddings: np.ndarray) -> list[str]:
        """The nearest text of each."""
        return self._decoder.decode(embeddings)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embeddings of texts of the corpus."""
        return self.embeddings[[self._rows[text] for text in texts]]

    def digest(self) -> str:
        """Equal for the same texts and model."""
        found = hashlib.sha256(f"{Path(self.base_model).name} {self.convention}".encode())
        for text in self.texts:
            found.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return found.hexdigest()


def optimize_funnel(
    funnel: str | Path,
    objective: str,
    output_dir: str | Path,
    *,
    maximize: bool,
    optimizer: str = "staged",
    trials: int = 225,
    q: int | None = None,
    workers: int = 0,
    seed: int = 0,
    bound: float = 3.0,
    corpus: str | Path | None = None,
    text_field: str = "text",
    base_model: str | None = None,
    known: str | Path | None = None,
    score_field: str = "score",
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> tuple[Optimizer, dict[str, Any]]:
    """Optimises an objective over a funnel; an interrupted call with the same arguments goes on.

    Args:
        funnel (`str` or `Path`): Folder of a funnel or of its run.
        objective (`str`): `"module:function"`, a function of a text (with `corpus`) or of an embedding of shape
            `(embedding_dim,)`. Modules of the current directory are found.
        output_dir (`str` or `Path`): Gets the state (`state.json`, `trials.safetensors`), `summary.json` and
            `trace.png`.
        maximize (`bool`): Whether larger values are better.
        optimizer (`str`, *optional*, defaults to `"staged"`): See [`make_optimizer`].
        trials (`int`, *optional*, defaults to 225): Trials.
        q (`int`, *optional*): Candidates that are proposed and evaluated together; by default one a worker.
        workers (`int`, *optional*, defaults to 0): Processes that evaluate; 0 evaluates in this one.
        seed (`int`, *optional*, defaults to 0): Of everything random.
        bound (`float`, *optional*, defaults to 3.0): See [`SearchSpace`].
        corpus (`str` or `Path`, *optional*): File of texts; a candidate is then the text of the nearest embedding.
        text_field (`str`, *optional*, defaults to `"text"`): Field of the texts.
        base_model (`str`, *optional*): Model that embeds them; by default that of the funnel.
        known (`str` or `Path`, *optional*): File of texts whose scores are known before ([`read_scored_texts`]), from
            which a model of all trials learns; they are no trials. Needs `corpus`.
        score_field (`str`, *optional*, defaults to `"score"`): Field of their scores; `text_field` is that of the
            texts.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to delete another run that lies in `output_dir`.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        options: Further arguments of the optimiser.

    Returns:
        `tuple[Optimizer, dict]`: The finished run and its [`~lsbo.report.summary`].

    Raises:
        ValueError: If the objective cannot be called, an argument has no valid value, no trial has a value, or
            `output_dir` holds another run.
        OSError: If something cannot be read or written.
    """
    function = load_objective(objective)
    if workers < 0:
        raise ValueError(f"workers must not be negative, but is {workers}")
    q = max(1, workers) if q is None else q
    if known is not None and corpus is None:
        raise ValueError("known scores are those of texts; give the corpus of texts that is searched")
    if known is not None and optimizer not in LEARN_FROM_KNOWN:
        raise ValueError(
            f"the optimizer {optimizer!r} does not learn from known scores; choose one of "
            f"{', '.join(LEARN_FROM_KNOWN)}, or leave them out"
        )
    scored = None if known is None else read_scored_texts(known, text_field, score_field)
    model = load_funnel(str(funnel))
    texts = None if corpus is None else CorpusTexts(corpus, text_field, model, base_model)
    texts_of = {} if texts is None else {"decode_texts": texts.decode, "encode_texts": texts.encode}
    space = SearchSpace(model, bound, **texts_of)
    if optimizer == "pool" and texts is not None:
        options = {**options, "pool": texts.embeddings}
    if scored is not None:
        # Checked without them first: encoding takes long.
        make_optimizer(optimizer, space, maximize=maximize, trials=trials, seed=seed, **options)
        options = {**options, "corpus": (texts.embed(scored[0]), scored[1])}
    make = partial(make_optimizer, optimizer, space, maximize=maximize, trials=trials, seed=seed, **options)
    # Everything that can be wrong is found before a folder is made or a text is encoded.
    settings = make().settings()
    key = {"objective": objective, "q": q, "corpus": texts and texts.digest(), **settings}
    folder = open_run(output_dir, hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest(), overwrite)
    run = make(folder=folder)
    executor = partial(ProcessPoolExecutor, workers, multiprocessing.get_context("spawn")) if workers else None
    run.optimize(function, q=q, executor=executor, progress=progress)
    about = {"objective": objective, "funnel": Path(funnel).resolve().name}
    about |= {} if corpus is None else {"corpus": f"{len(texts.texts):,} texts of {Path(corpus).name}"}
    return run, save_report(run, about=about)


def load_objective(name: str) -> Callable[[Any], float]:
    """A function by its name.

    Args:
        name (`str`): `"module:function"`; modules of the current directory are found.

    Raises:
        ValueError: If it is no such name, the module cannot be imported, or holds nothing of this name that can be
            called.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"the objective {name!r} must be named as module:function, such as scores:length")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"the module {module_name} of the objective {name} cannot be imported ({type(error).__name__}: {said})"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"the module {module_name} has no function {attribute}")
    found = getattr(module, attribute)
    if not callable(found):
        raise ValueError(f"{attribute} of the module {module_name} cannot be called: it is a {type(found).__name__}")
    return found
