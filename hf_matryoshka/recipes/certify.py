"""Making the levels of a trained Delta encoder monotone along a chain, with a certificate on held-out data."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.base_models import load_base_model
from ..data.evaluation_mode import evaluation_mode
from ..data.files import write_beside
from ..evaluation.certificate import (
    CERTIFICATE_FILE,
    Certificate,
    CertifiedGate,
    PairDifference,
    certify_chain,
    check_bounds,
    check_items,
    check_splits,
    content_hash,
    pair_differences,
)
from ..evaluation.curve import Curve
from ..evaluation.level_losses import losses_curve
from ..surgery.delta_gates import check_chain, levels_with_delta
from ..surgery.gate_search import GATES, Gate, check_gates, search_gates
from .certificate_splits import (
    HeldOut,
    check_held_out,
    check_unchanged,
    embedding_split,
    halves,
    held_out_texts,
    masked_lm_split,
    read_report,
    read_texts_once,
)
from .delta_recipe import DeltaRecipe
from .run_folder import CURVE_FILE
from .train_delta import load_run as load_masked_lm
from .train_delta_embedding import load_run as load_sentence_encoder


CERTIFIED_FOLDER = "certified"
# Name of the data that the levels are compared on, in the curve.
SPLIT = "certificate"


@dataclass(frozen=True)
class CertifiedModel:
    """What [`certify_model`] found.

    Args:
        certificate ([`Certificate`]): What may be claimed.
        gates (`list[Gate]`): The search.
        pairs_before (`list[PairDifference]`): The pairs of the certificate without gates.
        before, after (`Curve`): All levels on the certificate split without gates and with them.
    """

    certificate: Certificate
    gates: list[Gate]
    pairs_before: list[PairDifference]
    before: Curve
    after: Curve


@dataclass(frozen=True)
class CertifiedRun:
    """What [`certify_run`] wrote.

    Args:
        folder (`Path`): Holds `model/`, `certificate.json` and `curve.json`; [`export_family`] and `hf-matryoshka
            export` take it.
        model (`PreTrainedModel` or `SentenceTransformer`): The model with its gates.
        found ([`CertifiedModel`]): Certificate, gates and curves.
    """

    folder: Path
    model: PreTrainedModel | SentenceTransformer
    found: CertifiedModel

    @property
    def certificate(self) -> Certificate:
        """What may be claimed."""
        return self.found.certificate


def certify_model(
    model: PreTrainedModel,
    calibration: HeldOut,
    certificate: HeldOut,
    *,
    chain: Sequence[int | str] | None = None,
    gates: Sequence[float] = GATES,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    progress: bool = True,
) -> CertifiedModel:
    """Chooses gates along a chain on one split and compares the levels on the other.

    Args:
        model (`PreTrainedModel`): A Delta encoder; the gates are folded into its weights.
        calibration, certificate ([`HeldOut`]): The splits.

    The other arguments are those of [`certify_run`].

    Raises:
        ValueError: As for [`certify_run`].
    """
    chain, gates = check_chain(model, chain), check_gates(gates)
    check_splits(calibration.hashes, certificate.hashes)
    check_items(len(certificate.score), certificate.unit)
    levels = model.config.levels
    with evaluation_mode(model):
        before, weights = _losses(model, certificate, levels, "Before", progress)
        found = search_gates(model, calibration.score, chain, gates, progress)
        after, _ = _losses(model, certificate, levels, "After", progress)
    moved = [gate for gate in found if gate.alpha != 1]
    changed = {level for gate in moved for level in levels_with_delta(model, gate.smaller, gate.larger)}
    settings = {"tolerance": tolerance, "confidence": confidence}
    pairs_before = pair_differences({level: before[level] for level in chain}, weights, **settings)
    statement = certify_chain(
        {level: after[level] for level in chain},
        weights,
        metric=certificate.score.metric,
        unit=certificate.unit,
        gates=[CertifiedGate(gate.smaller, gate.larger, gate.alpha, gate.inexact) for gate in found],
        calibration=calibration.record,
        certificate=certificate.record,
        changed=[level for level in levels if level in changed],
        violations_before=sum(pair.violation for pair in pairs_before),
        **settings,
    )
    curves = [losses_curve(model, certificate.score, SPLIT, losses, weights) for losses in (before, after)]
    return CertifiedModel(statement, found, pairs_before, *curves)


def certify_run(
    run: str | Path,
    calibration: Sequence[str | Path] | None = None,
    certificate: Sequence[str | Path] | None = None,
    *,
    text_field: str = "text",
    chain: Sequence[int | str] | None = None,
    gates: Sequence[float] = GATES,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    teacher: str | Path | None = None,
    max_items: int = 2048,
    batch_size: int = 32,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> CertifiedRun:
    """Chooses a gate for each step of a chain of levels, and certifies on other data that no larger level loses.

    What a level adds to the one before it is multiplied by a gate ([`search_gates`]); a gate of 0 is the smaller
    level, so on the calibration texts the loss cannot go up along the chain. The certificate is about other texts,
    and about nothing but these levels, this loss and data like those texts ([`Certificate`]). The run itself stays as
    it is.

    Args:
        run (`str` or `Path`): Folder of a finished run of [`train_delta`] or [`train_delta_embedding`]. Gets
            `certified/` with `model/`, `certificate.json` and `curve.json`.
        calibration, certificate (`Sequence`, *optional*): Files with texts that were not trained on, to choose the
            gates on and to certify on. By default the texts that the run held out, half of them for each.
        text_field (`str`, *optional*, defaults to `"text"`): Field of `.jsonl` files or column of tables.
        chain (`Sequence`, *optional*): Levels, each inside the next; by default the longest chain of the model.
        gates (`Sequence[float]`, *optional*): The gates to try, 0 and 1 among them.
        tolerance (`float`, *optional*, defaults to 0.0): Mean loss that a larger level may lose.
        confidence (`float`, *optional*, defaults to 0.95): Of all bounds together.
        teacher (`str` or `Path`, *optional*): For a sentence encoder, the model whose embeddings are the target; by
            default the one that it was distilled from.
        max_items (`int`, *optional*, defaults to 2048): Rows (masked language model) or texts (sentence encoder) of
            each split, at most.
        batch_size (`int`, *optional*, defaults to 32): Of them at a time.
        device (`str`, *optional*): Where to compute; the CPU by default.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace an earlier `certified/`.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress.

    Returns:
        [`CertifiedRun`].

    Raises:
        ValueError: If the folder is no finished run, there is no held-out data, the splits have texts in common or
            are too small, or an argument has no valid value.
        FileExistsError: If there is a certificate already.
        OSError: If something cannot be read or written.
    """
    run = Path(run)
    report = read_report(run)
    folder = run / CERTIFIED_FOLDER
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a certificate already; overwrite it, or use what is there")
    if (calibration is None) != (certificate is None):
        missing = "calibration" if calibration is None else "certificate"
        raise ValueError(f"a certificate needs two splits of held-out data, but none was given for {missing}")
    if max_items < 1 or batch_size < 1:
        raise ValueError(f"max_items and batch_size must be at least 1, but are {max_items} and {batch_size}")
    own = calibration is None
    if own:
        check_held_out(run, report)
    check_bounds(tolerance, confidence)
    gates = check_gates(gates)
    embeds = report["recipe"]["objective"] == "embedding"
    if teacher is not None and not embeds:
        raise ValueError(f"teacher is for sentence encoders, but {run} trained a masked language model")
    trained = (load_sentence_encoder if embeds else load_masked_lm)(run)
    model = trained.model.to(device or "cpu")
    encoder = model[0].model if embeds else model
    chain = check_chain(encoder, chain)
    if own:
        texts = halves(held_out_texts(run, report))
    else:
        texts = read_texts_once(calibration, text_field), read_texts_once(certificate, text_field)
    check_splits(*(set(map(content_hash, part)) for part in texts))
    if embeds:
        target = load_base_model(teacher or report["recipe"]["base_model_path"], device=device or "cpu")
        splits = [embedding_split(part, model, target, max_items, batch_size) for part in texts]
    else:
        recipe = DeltaRecipe(**report["recipe"])
        packed = [masked_lm_split(part, encoder, trained.tokenizer, recipe, max_items, batch_size) for part in texts]
        if own:
            check_unchanged(run, [rows for _, rows in packed])
        splits = [split for split, _ in packed]
    sparse, encoder.config.sparse_prediction = encoder.config.sparse_prediction, True  # of logits only those asked for
    settings = {"chain": chain, "gates": gates, "tolerance": tolerance, "confidence": confidence}
    found = certify_model(encoder, *splits, **settings, progress=progress)
    encoder.config.sparse_prediction = sparse
    with write_beside(folder) as temporary:
        temporary.mkdir()
        if embeds:
            model.save(str(temporary / "model"), create_model_card=False)
        else:
            model.save_pretrained(temporary / "model")
            trained.tokenizer.save_pretrained(temporary / "model")
        found.certificate.to_json(temporary / CERTIFICATE_FILE)
        found.after.to_json(temporary / CURVE_FILE)
        shutil.rmtree(folder, ignore_errors=True)
    return CertifiedRun(folder, model, found)


def _losses(
    model: PreTrainedModel, split: HeldOut, levels: Sequence[str], name: str, progress: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Losses of the items of a split by level, and the weights of the items."""
    found, weights = {}, None
    for level in tqdm(levels, desc=name, unit="level", disable=not progress):
        found[level], weights = split.score(model, level)
    return found, weights
