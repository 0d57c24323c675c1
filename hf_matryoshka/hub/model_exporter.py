"""Exports of a nested transformers model."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ..modeling.budgets import BudgetsMixin
from .level_exporter import SAMPLE_TEXTS, Comparison, LevelExporter, on_cpu


# Heads that have a pipeline of their own; any other model runs as a feature extractor.
PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
}
MAX_LENGTH = 64


class ModelExporter(LevelExporter):
    """One level of a nested model, which says by itself how it is cut (`cut`) and what stock class computes it
    (`to_stock`).

    Args:
        model (`PreTrainedModel`): The nested model.
        level (`int`, `str` or `None`): See [`LevelExporter`].
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Written along.
        shard_by_level (`bool`, *optional*, defaults to `False`): Whether a repo of several levels has its weights in
            one shard a level.
    """

    template = "model.md"

    def __init__(
        self,
        model: PreTrainedModel,
        level: int | str | None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        shard_by_level: bool = False,
    ):
        super().__init__(model, level)
        self.tokenizer = tokenizer
        self.inputs = "tokens" if tokenizer is None else "text"
        self.shard_by_level = shard_by_level
        self._trained = on_cpu(model)

    def _writer(self, form: str) -> Callable[[Path], None]:
        kwargs = {}
        if form != "remote_code":
            small = self._trained.to_stock(self.level, padded=form == "stock_padded")
        else:
            small = self._trained if self.full else self._trained.cut(self.level)
            kwargs["shard_by_level"] = self.shard_by_level

        def write(folder: Path) -> None:
            small.save_pretrained(folder, **kwargs)
            if self.tokenizer is not None:
                unused(self.tokenizer).save_pretrained(folder)

        return write

    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        nested, levels = form == "remote_code", self.levels(form)
        inputs = self._sample_inputs()
        tokenizer = None if self.tokenizer is None else self._reload_tokenizer(form, folder)
        for name, repo_class in self._classes(form, folder).items():
            loaded = repo_class.from_pretrained(folder).eval()
            for level in levels if nested else ():
                yield from self._compare(name, loaded, inputs, level, {"level": level})
            default = self._default_level(levels[-1]) if nested else levels[-1]
            yield from self._compare(name, loaded, inputs, default, {})
            for level in levels if nested and self.shard_by_level else ():
                small = repo_class.from_pretrained(folder, level=level).eval()
                yield from self._compare(f"{name} of one level", small, inputs, self._default_level(level), {})
            if _head(loaded) in (_head(self.model), "") and self._runs_pipeline(_head(loaded)):
                _run_pipeline(loaded, tokenizer)

    def _classes(self, form: str, folder: Path) -> dict[str, type]:
        """By name, every class that a user can load the folder with."""
        config = PreTrainedConfig.get_config_dict(folder)[0]
        if form != "remote_code":
            # "AutoModel" finds its class by the config; every other AutoClass leads to the class that was saved.
            return {
                name: getattr(transformers, name) for name in dict.fromkeys(["AutoModel", *config["architectures"]])
            }
        # Not the AutoClasses: where this package is imported they take our own, and the repo's code stays untried.
        return {
            name: get_class_from_dynamic_module(code, str(folder))
            for name, code in config["auto_map"].items()
            if name.startswith("AutoModel")
        }

    def _default_level(self, level: str) -> str:
        """What a nested model whose largest level is this one computes where no level is asked for."""
        return level

    def _compare(
        self, name: str, loaded: PreTrainedModel, inputs: dict[str, torch.Tensor], level: str, kwargs: dict[str, str]
    ) -> Iterator[Comparison]:
        trained = self._trained
        if _head(loaded) != _head(trained):
            # A head that the checkpoint lacks starts at random: only what lies below it can be compared.
            loaded, trained = loaded.base_model, trained.base_model
        outputs = [loaded(**inputs, **kwargs)[0], trained(**inputs, level=level)[0]]
        if outputs[0].shape == outputs[1].shape and outputs[0].ndim == 3:
            # What a model computes at padded positions is nobody's output.
            outputs = [output[inputs["attention_mask"].bool()] for output in outputs]
        yield Comparison(level, name, *outputs)

    def _sample_inputs(self) -> dict[str, torch.Tensor]:
        if self.tokenizer is not None:
            # A tokenizer without a padding token cannot make a batch of texts of several lengths.
            texts = list(SAMPLE_TEXTS) if self.tokenizer.pad_token is not None else [SAMPLE_TEXTS[1]]
            length = min(MAX_LENGTH, self.tokenizer.model_max_length)
            padding = self.tokenizer.pad_token is not None
            found = self.tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
            return {name: tensor for name, tensor in found.items() if name in ("input_ids", "attention_mask")}
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.model.config.vocab_size, (2, 16), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 11:] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def _reload_tokenizer(self, form: str, folder: Path) -> PreTrainedTokenizerBase:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=form == "remote_code")
        for text in SAMPLE_TEXTS:
            if tokenizer(text)["input_ids"] != self.tokenizer(text)["input_ids"]:
                raise ValueError(f"its tokenizer reads {text!r} in another way than the one that was given")
        return tokenizer

    def onnx_model(self, form: str, folder: Path) -> PreTrainedModel:
        return self._trained.cut(self.level)

    def _runs_pipeline(self, head: str) -> bool:
        if self.tokenizer is None:
            return False
        return head != "ForMaskedLM" or self.tokenizer.mask_token is not None

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {self._trained.dtype}

    def dim(self, level: str) -> int | None:
        return None

    def onnx_dims(self, form: str) -> list[int] | None:
        return None

    def budget(self, level: str) -> list | None:
        config = self.model.config
        return config.budgets[config.level_index(level)] if isinstance(config, BudgetsMixin) else None

    def cost(self, level: str) -> dict[str, float]:
        cost = super().cost(level)
        return {**cost, "flops_per_token": 2 * cost["macs"]}

    def card_fields(self, form: str) -> dict[str, Any]:
        head = _head(self.model)
        return {
            "auto_class": f"AutoModel{head}",
            "pipeline_tag": PIPELINES.get(head, "feature-extraction"),
            "with_tokenizer": self.tokenizer is not None,
            "runs_pipeline": self._runs_pipeline(head),
        }


def unused(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy without the padding and truncation of its last call, which it would save: two exports would differ.

    Each call sets both anew; `model_max_length` is kept.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _head(model: PreTrainedModel) -> str:
    """`"ForMaskedLM"`, or the empty string for a model without a head."""
    found = re.search(r"For[A-Z]\w*$", type(model).__name__)
    return found.group() if found else ""


def _run_pipeline(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    task = PIPELINES.get(_head(model), "feature-extraction")
    text = SAMPLE_TEXTS[1]
    if task == "fill-mask":
        text = f"a {tokenizer.mask_token} model"
    kwargs = {"max_new_tokens": 1} if task == "text-generation" else {}
    if not pipeline(task, model=model, tokenizer=tokenizer, device="cpu")(text, **kwargs):
        raise ValueError(f"its {task} pipeline gives nothing")
