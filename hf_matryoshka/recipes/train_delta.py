"""Training a nested masked language model from texts."""

from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.files import write_beside
from ..data.packed_collator import MaskEpochs, PackedMlmCollator
from ..data.packing_info import INFO_FILE
from ..data.train_tokenizer import train_tokenizer
from ..evaluation.curve import Curve
from ..evaluation.masked_lm import run_full_evaluation
from ..surgery.layer_order import order_layers_by_importance
from ..surgery.rewire import rewire_by_importance
from ..trainers.delta_arguments import DeltaTrainingArguments
from ..trainers.delta_trainer import DeltaTrainer
from .delta_model import (
    build_config,
    build_model,
    export_forms,
    find_tokenizer,
    is_nested,
    load_teacher,
)
from .delta_recipe import DeltaRecipe
from .delta_upgrade import fold_pack, with_pack
from .packed_corpus import TOKENIZER_DOCUMENTS, Corpus, check_length, count_tokens, pack_corpus, split_rows
from .run_folder import CURVE_FILE, finish_run, is_finished, load_report, load_text_model, open_run
from .training_run import options_digest, run_arguments, run_training


REWIRE_ROWS = 256
# Defaults of the arguments, from scratch and from a checkpoint; `training` overrides them.
LEARNING_RATES = {False: 3e-3, True: 2e-4}
# A coefficient moves the norm of a whole weight.
PACK_LEARNING_RATE = 1e-2
DEFAULTS = {
    "max_steps": 1000,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 32,
    "warmup_steps": 0.1,
    "logging_steps": 50,
}


@dataclass
class TrainedDelta:
    """A nested masked language model and how it came about.

    Args:
        model (`PreTrainedModel`): The model, in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        report (`dict`): Steps, seconds, tokens, and the held-out loss of each level before and after.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    report: dict[str, Any]


def train_delta(
    recipe: DeltaRecipe,
    output_dir: str | Path,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedDelta:
    """Trains a masked language model at all its budgets; an interrupted call with the same arguments goes on.

    Texts are packed into rows of whole documents that do not see each other, masked anew in each epoch, and the model
    is trained by [`DeltaTrainer`].

    Args:
        recipe ([`DeltaRecipe`]):
            What to train on, and which model.
        output_dir (`str` or `Path`):
            Gets `model/` (with the tokenizer), `training.json` (the report), `curve.json` (held-out quality of each
            level), `data/` (the packed rows) and the checkpoints; with `enable_dds` also `delta_pack.safetensors` and
            `dds_bank.safetensors`, which make `model/` of the checkpoint ([`apply_delta_pack`]).
        training (`dict`, *optional*):
            Further [`DeltaTrainingArguments`].
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedDelta`].

    Raises:
        ValueError: If an argument has no valid value, parts do not fit together, the corpus is too short, or
            `output_dir` holds another run.
        OSError: If something cannot be read, or `output_dir` cannot be written.
    """
    training = dict(training or {})
    args = delta_arguments(Path(output_dir) / "checkpoints", recipe, training)
    if args.enable_token_delta and recipe.token_routing is None:
        recipe = replace(recipe, token_routing=True)
    compared = [name for name in ("enable_cscf", "enable_mug", "enable_delta_residual") if getattr(args, name)]
    if recipe.level_maskings and compared:
        raise ValueError(
            f"{compared[0]} compares budgets token by token, but with level_maskings each predicts other tokens; "
            "switch one of them off"
        )
    build_config(recipe, None)
    tokenizer = find_tokenizer(recipe)
    config, model_class = build_config(recipe, tokenizer)
    uses_target = args.enable_kd or recipe.init_delta_from_target or recipe.enable_dds
    if recipe.target_model_path is not None and not uses_target:
        raise ValueError("target_model_path needs enable_kd=True")
    forms = export_forms(config, model_class)
    model = None
    if recipe.enable_dds:
        # A bank that does not fit is said before any work.
        model = with_pack(build_model(recipe, tokenizer), recipe, recipe.seed, load_teacher(recipe))
    corpus = None if recipe.pretokenized_path else Corpus(recipe)
    folder = open_run(output_dir, _run_key(recipe, training, corpus), overwrite)
    if is_finished(folder):
        return load_run(folder)

    progress = not args.disable_tqdm
    if tokenizer is None:
        tokenizer = _own_tokenizer(folder / "tokenizer", corpus, recipe, progress)
    if corpus is None:
        rows, held_out = split_rows(recipe)
    else:
        rows, held_out = pack_corpus(corpus, folder / "data", tokenizer, recipe, progress)
    rows_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    check_length(rows, rows_a_step)
    if model is None:
        model = build_model(recipe, tokenizer)
    if recipe.init_delta_from_target:
        # Only now the budgets are known: the smallest is the grown checkpoint.
        forms = export_forms(model.config, model_class)
    fresh = recipe.base_model_path is not None and not is_nested(recipe.base_model_path)
    fresh = fresh and not recipe.init_delta_from_target and not recipe.enable_dds
    choose = fresh and recipe.layer_order is None if recipe.order_layers is None else recipe.order_layers
    sort = fresh if recipe.rewire is None else recipe.rewire
    if choose or sort:
        some = rows.select(range(0, len(rows), -(-len(rows) // REWIRE_ROWS)))
        texts = tokenizer.batch_decode(list(some["input_ids"]), skip_special_tokens=True)
        if choose:
            order_layers_by_importance(model, texts, tokenizer, progress=progress)
        if sort:
            rewire_by_importance(model, texts, tokenizer)
    report = {"recipe": asdict(recipe), "training": training, "forms": forms}
    report |= _train(model, tokenizer, rows, held_out, args, recipe)
    if recipe.enable_dds:
        model, sizes = fold_pack(model, build_model(recipe, tokenizer), folder)
        report |= sizes
    if held_out is not None:
        _curve(model, tokenizer, held_out, args, recipe).to_json(folder / CURVE_FILE)
    model.config.sparse_prediction = config.sparse_prediction
    finish_run(folder, report, model, tokenizer)
    return TrainedDelta(model.eval(), tokenizer, report)


def _curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Dataset,
    args: DeltaTrainingArguments,
    recipe: DeltaRecipe,
) -> Curve:
    """Held-out quality against cost, for the cards of an export."""
    collator = PackedMlmCollator(tokenizer, model.config, mlm_probability=recipe.mlm_probability)
    loader = DataLoader(held_out, args.per_device_eval_batch_size, collate_fn=collator)
    settings = {"split": "heldout", "latency_repeats": 0, "progress": False}
    return run_full_evaluation(model, loader, device=args.device, **settings)["curve"]


def delta_arguments(folder: Path, recipe: DeltaRecipe, training: dict[str, Any]) -> DeltaTrainingArguments:
    """The arguments of a run.

    Raises:
        ValueError: If one has no valid value.
    """
    rate = PACK_LEARNING_RATE if recipe.enable_dds else LEARNING_RATES[recipe.base_model_path is not None]
    return run_arguments(DeltaTrainingArguments, folder, recipe, training, **DEFAULTS | {"learning_rate": rate})


def load_run(folder: Path) -> TrainedDelta:
    """A finished run."""
    return TrainedDelta(*load_text_model(folder, AutoModelForMaskedLM), load_report(folder))


class RunTrainer(DeltaTrainer):
    """A [`DeltaTrainer`] that masks held-out rows always alike."""

    def __init__(self, *args, eval_collator: PackedMlmCollator, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        training_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    held_out: Dataset | None,
    args: DeltaTrainingArguments,
    recipe: DeltaRecipe,
) -> dict[str, Any]:
    """Trains the model in place; what the report says about it."""
    masking = {"mlm_probability": recipe.mlm_probability}
    maskings = len(model.config.levels) if recipe.level_maskings else 1
    collator = PackedMlmCollator(tokenizer, model.config, maskings=maskings, seed=recipe.seed, **masking)
    trainer = RunTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=collator,
        eval_collator=PackedMlmCollator(tokenizer, model.config, **masking),
        teacher=load_teacher(recipe) if args.enable_kd else None,
        callbacks=[MaskEpochs(collator)],
    )
    report = run_training(trainer, "masked language model")
    # A resumed call is timed by its own steps.
    steps = report["steps"] - report["resumed_from_step"]
    rows_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    tokens_a_step = rows_a_step * count_tokens(rows) / len(rows)
    return report | {
        "tokens": round(report["steps"] * tokens_a_step),
        "tokens_per_second": round(steps * tokens_a_step / max(report["seconds"], 0.01)),
        "rows": len(rows),
        "held_out_rows": 0 if held_out is None else len(held_out),
    }


def _own_tokenizer(folder: Path, corpus: Corpus, recipe: DeltaRecipe, progress: bool) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the texts, or the one that this run trained before it was interrupted."""
    if not folder.is_dir():
        texts = islice(corpus.train(), TOKENIZER_DOCUMENTS)
        tokenizer = train_tokenizer(texts, recipe.vocab_size, progress=progress)
        with write_beside(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return AutoTokenizer.from_pretrained(folder)


def _run_key(recipe: DeltaRecipe, training: dict[str, Any], corpus: Corpus | None) -> str:
    digest = options_digest(recipe, training)
    if corpus is None:
        for path in filter(None, (recipe.pretokenized_path, recipe.validation_path)):
            digest.update((Path(path) / INFO_FILE).read_bytes())
    else:
        digest.update(corpus.digest.digest())
    return digest.hexdigest()
