"""One level of a trained model as a Hub repo."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peft import PeftModel
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelModel
from ..modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from .adaptor_exporter import AdaptorExporter
from .cards import CardDetails, CardFacts, write_card
from .funnel_exporter import FunnelExporter
from .gate import check_export
from .level_exporter import FORMS, LevelExporter, on_cpu
from .mamba_exporter import MambaEncoderExporter, MambaExporter
from .manifest import FamilyLevel, FamilyRepo, Manifest, weight_hashes
from .model_exporter import ModelExporter
from .onnx_export import OnnxExport, check_onnx_packages, export_onnx, export_token_onnx
from .onnx_stream import export_onnx_stream
from .output_folder import check_output_dir, staged_folder
from .progress import no_progress_bars
from .sentence_encoder_exporter import SentenceEncoderExporter, check_sentence_encoder
from .vector_exporter import hub_id, load_base


def export_level(
    model: PreTrainedModel | SentenceTransformer,
    level: int | str | None,
    output_dir: str | os.PathLike,
    *,
    format: str = "auto",
    base_model: SentenceTransformer | str | os.PathLike | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    card: CardDetails | None = None,
    shard_by_level: bool = False,
    onnx: bool = False,
    overwrite: bool = False,
) -> FamilyRepo:
    """Write a level as a repo, load it back in every way that its users have, and compare it with the trained model.

    The repo is self-contained. Its form is the strongest one that is exact: *stock* (a class that transformers or
    sentence-transformers already has, no remote code), *stock, padded with zeros*, or *remote code* (the nested model
    with the levels up to this one, and its code); card and manifest say why it is not a stronger one.

    Args:
        model (`PreTrainedModel` or `SentenceTransformer`): The nested model, or a sentence-embedding model whose first
            module is a [`NestedTransformer`] or a [`MatryoshkaMambaTransformer`].
        level (`int`, `str` or `None`): The level, `None` for the largest, `"full"` for a repo that holds all levels.
        output_dir (`str` or `os.PathLike`): A new or empty folder, or an earlier export, which is replaced. Nothing
            appears there unless the comparison succeeds.
        format (`str`, *optional*, defaults to `"auto"`): `"stock"`, `"stock_padded"` or `"remote_code"` for this form
            and no other.
        base_model (`SentenceTransformer`, `str` or `os.PathLike`, *optional*): For an adaptor or a funnel, the model
            whose embeddings it was trained on, or the folder it is saved in. Without it (vectors from an API), the
            repo is the adaptor or the funnel. Of a funnel with an embedding convention, a loaded model must follow it;
            one from a folder is made to.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): For a model of texts, its tokenizer; a
            `SentenceTransformer` has its own.
        card ([`CardDetails`], *optional*): What the card says beyond what the model tells; its base model is by
            default that of the model's config, unless that is a local folder.
        shard_by_level (`bool`, *optional*, defaults to `False`): Whether a repo of several levels has its weights in
            one shard a level, so that `from_pretrained(repo, level=...)` downloads only what this level needs.
        onnx (`bool`, *optional*, defaults to `False`): Whether to write the ONNX graphs (float32 and int8) to `onnx/`;
            that of a causal [`MatryoshkaMambaModel`] also for texts that arrive in parts. A funnel has none.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not an earlier export.

    Returns:
        [`FamilyRepo`]: What was written.

    Raises:
        ValueError: If the level does not exist, the format is not exact, or an argument does not fit the model.
        FileNotFoundError: If the base model or the plot does not exist.
        FileExistsError: If the folder holds other files.
        OSError: If the folder cannot be written.
        ExportError: If what was written does not compute what the trained model computes.
    """
    job = ExportJob.prepare(model, format, base_model, tokenizer, card, shard_by_level, onnx)
    exporter = job.exporter(level)
    job.check_form(exporter)
    check_output_dir(output_dir, overwrite)
    with staged_folder(output_dir) as folder:
        written = job.write(exporter, folder)
        job.describe(folder, written, [replace(written.repo, location=".")])
    return replace(written.repo, location=str(output_dir))


# Where the graphs of a repo lie, as in other repos of the Hub.
ONNX_FOLDER = "onnx"


@dataclass(frozen=True)
class WrittenRepo:
    """A repo that passed the gate and lacks its card and manifest yet."""

    exporter: LevelExporter
    repo: FamilyRepo
    onnx: OnnxExport | None


@dataclass(frozen=True)
class ExportJob:
    """The arguments of an export, checked; see [`export_level`].

    `model` is the nested model; `encoder` is the model that it is the first module of, if one was given.
    """

    model: PreTrainedModel
    encoder: SentenceTransformer | None
    format: str
    base: SentenceTransformer | None
    tokenizer: PreTrainedTokenizerBase | None
    details: CardDetails
    shard_by_level: bool
    onnx: bool

    @classmethod
    def prepare(
        cls,
        model: PreTrainedModel | SentenceTransformer,
        format: str,
        base_model: SentenceTransformer | str | os.PathLike | None,
        tokenizer: PreTrainedTokenizerBase | None,
        card: CardDetails | None,
        shard_by_level: bool,
        onnx: bool,
    ) -> "ExportJob":
        """Check the arguments, and load the base model if it is a folder."""
        encoder = None
        if isinstance(model, SentenceTransformer):
            check_sentence_encoder(model)
            if base_model is not None or tokenizer is not None:
                raise ValueError("a SentenceTransformer has a tokenizer and needs no base_model; give neither")
            encoder = on_cpu(model)
            model = encoder[0].model
        if isinstance(model, PeftModel):
            raise ValueError("the model carries PEFT adapters; merge them first with model.merge_and_unload()")
        if not isinstance(model, PreTrainedModel) or not hasattr(model.config, "levels"):
            raise ValueError(
                f"{type(model).__name__} has no levels; export a nested model such as MatryoshkaAdaptorModel"
            )
        if format not in ("auto", *FORMS):
            raise ValueError(f"format must be auto, {', '.join(FORMS[:-1])} or {FORMS[-1]}, but is {format!r}")
        funnel = isinstance(model, MatryoshkaFunnelModel)
        on_vectors = funnel or isinstance(model, MatryoshkaAdaptorModel)
        if on_vectors and tokenizer is not None:
            raise ValueError(
                f"{type(model).__name__} takes embeddings and no tokenizer; give the base_model, which has its own"
            )
        if not on_vectors and base_model is not None:
            raise ValueError(f"{type(model).__name__} needs no base_model; only an adaptor or a funnel does")
        if onnx:
            check_onnx_packages()
        details = card or CardDetails()
        if details.plot is not None and not Path(details.plot).is_file():
            raise FileNotFoundError(f"plot {details.plot} does not exist")
        _check_certificate(details, model.config.levels)
        named = details.base_model or (model.config.base_model if on_vectors else None)
        details = replace(details, base_model=hub_id(named))
        convention = model.config.embedding_convention if funnel else None
        base = load_base(base_model, model, convention) if on_vectors else None
        return cls(model, encoder, format, base, tokenizer, details, shard_by_level, onnx)

    def exporter(self, level: int | str | None) -> LevelExporter:
        """How this model's level is written; raises `ValueError` if it does not exist."""
        if isinstance(self.model, MatryoshkaAdaptorModel):
            return AdaptorExporter(self.model, level, self.base, self.shard_by_level)
        if isinstance(self.model, MatryoshkaFunnelModel):
            return FunnelExporter(self.model, level, self.base, self.shard_by_level)
        if isinstance(self.model, MatryoshkaMambaModel) and self.encoder is not None:
            return MambaEncoderExporter(self.encoder, level, self.shard_by_level)
        if isinstance(self.model, MatryoshkaMambaModel):
            return MambaExporter(self.model, level, self.tokenizer, self.shard_by_level)
        if self.encoder is not None:
            return SentenceEncoderExporter(self.encoder, level, self.shard_by_level)
        return ModelExporter(self.model, level, self.tokenizer, self.shard_by_level)

    def check_form(self, exporter: LevelExporter) -> None:
        """Raise `ValueError` if the level does not have the form, or the graph, that was asked for."""
        if self.onnx and exporter.no_onnx is not None:
            raise ValueError(exporter.no_onnx)
        if self.format in FORMS and not exporter.full:
            exporter.writer(self.format)

    def write(self, exporter: LevelExporter, folder: Path) -> WrittenRepo:
        """Write the strongest exact form into an empty folder, and pass it through the gate."""
        form, reason, write = self._strongest(exporter)
        with no_progress_bars():
            try:
                write(folder)
            except SafetensorError as error:
                # Its writer hides what the system said, such as a full disk, in a text.
                raise OSError(f"the weights of {exporter.name} cannot be written: {error}") from error
            difference = check_export(exporter, form, folder)
            onnx = self._write_onnx(exporter, form, folder) if self.onnx else None
        repo = FamilyRepo(
            name=exporter.name,
            location=f"../{exporter.name}",
            levels=exporter.levels(form),
            form=form,
            reason=reason,
            max_difference=difference,
            files=weight_hashes(folder),
        )
        return WrittenRepo(exporter, repo, onnx)

    def _strongest(self, exporter: LevelExporter) -> tuple[str, str | None, Callable[[Path], None]]:
        if self.format in FORMS and not exporter.full:
            return self.format, None, exporter.writer(self.format)
        reasons: list[str] = []
        for form in FORMS[:-1]:
            try:
                return form, "; ".join(dict.fromkeys(reasons)) or None, exporter.auto_writer(form)
            except ValueError as error:
                reasons.append(str(error))
        return FORMS[-1], "; ".join(dict.fromkeys(reasons)), exporter.writer(FORMS[-1])

    def _write_onnx(self, exporter: LevelExporter, form: str, folder: Path) -> OnnxExport:
        model, dims = exporter.onnx_model(form, folder), exporter.onnx_dims(form)
        if dims is None:
            exported = export_token_onnx(model, folder / ONNX_FOLDER)
        else:
            exported = export_onnx(model, folder / ONNX_FOLDER, matryoshka_dims=dims)
        streamed = exporter.onnx_stream_model(form)
        if streamed is None:
            return exported
        stream = export_onnx_stream(streamed, folder / ONNX_FOLDER)
        return replace(
            exported,
            max_difference=max(exported.max_difference, stream.max_difference),
            sizes=exported.sizes | {stream.graph.name: stream.nbytes},
        )

    def describe(self, folder: Path, written: WrittenRepo, repos: list[FamilyRepo]) -> None:
        """Write manifest and card, once all repos of the family are known."""
        exporter, form = written.exporter, written.repo.form
        manifest = Manifest(
            model_type=self.model.config.model_type,
            this=exporter.name,
            inputs=exporter.inputs,
            levels=[self._level(exporter, name) for name in self.model.config.levels],
            repos=repos,
            base_model=self.details.base_model,
            matryoshka_dims=exporter.matryoshka_dims(),
            certificate=self.details.certificate,
        )
        manifest.write(folder)
        facts = CardFacts(
            manifest=manifest,
            template=exporter.template,
            fields=exporter.card_fields(form),
            details=self.details,
            sharded=self.shard_by_level and form == "remote_code",
            onnx=written.onnx,
        )
        write_card(folder, facts)

    def _level(self, exporter: LevelExporter, name: str) -> FamilyLevel:
        cost, quality = exporter.cost(name), []
        for curve in self.details.curves:
            for point in curve.points:
                if point.level == name:
                    # What the model itself says wins: a curve may count texts of another length.
                    cost = {**point.cost, **cost}
                    quality.append(
                        {
                            "metric": curve.metric,
                            "split": curve.split,
                            "value": point.quality,
                            "low": point.low,
                            "high": point.high,
                        }
                    )
        return FamilyLevel(name, exporter.dim(name), cost, quality, exporter.budget(name))


def _check_certificate(details: CardDetails, levels: Sequence[str]) -> None:
    """Raise `ValueError` if a certificate is of another model."""
    for level in [] if details.certificate is None else details.certificate.chain:
        if level not in levels:
            raise ValueError(
                f"the certificate is about level {level}, which the model does not have; its levels are "
                f"{', '.join(levels)}"
            )
