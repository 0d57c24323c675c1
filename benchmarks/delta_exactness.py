"""How exact the Delta encoders are: exports and the nested forward, the full budget and stock, packed documents.

    python benchmarks/delta_exactness.py --out benchmarks/results/delta_exactness.json

Largest differences in float32 between hidden states of the same tokens, two rows of 48, one of them padded (positions
of padding are left out). Models: `minilm`, the weights of all-MiniLM-L6-v2 at the budgets of
configs/delta_minilm.yaml; `minilm_mixed`, the same at Mix'n'Match widths, and with fewer heads; `minilm_joint`, with
the residual stream nested, too; `modernbert` and `modernbert_mixed`, random weights of 12 layers of 768 (12 heads,
feed-forward 1152) with uneven norms.

`export_difference` is between a budget of the nested model and the model that `to_stock` makes of it, padded with
zeros where there is no other stock form; `cut_difference` between that budget and `cut`; `stock_difference` between
the full budget and the stock model of the same weights. `isolation_difference` is between documents packed into one
row and each of them alone, in the stock model with the block-diagonal mask, and `leak_difference` the same with one
plain mask.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModel, ModernBertConfig, ModernBertModel, PreTrainedModel

from hf_matryoshka import DeltaBertModel, DeltaModernBertModel
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.data.packing_masks import add_packed_mask, packed_position_ids, segment_ids
from hf_matryoshka.evaluation.report import write_report


CONFIG = Path(__file__).parents[1] / "configs" / "delta_minilm.yaml"
LENGTH = 48
DOCUMENTS = [20, 7, 21]
MIXED = [[[0.25, 0.5, 0.25], 12, 3], [[0.5, 0.75, 0.5, 0.25], 6, 4], [1.0, 12, 6]]
BASE = [[0.5, 12, 6], [0.75, 12, 9], [1.0, 12, 12]]
BASE_MIXED = [[[0.25, 0.5, 0.5, 0.25, 1.0, 0.5], 12, 6], [0.75, 6, 9], [1.0, 12, 12]]


def modernbert() -> ModernBertModel:
    torch.manual_seed(0)
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    shape = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1152}
    model = ModernBertModel(ModernBertConfig(**shape, **ids, vocab_size=8192))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(model: PreTrainedModel, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, model.config.vocab_size, (rows, LENGTH), generator=generator)


def exports(name: str, nested: PreTrainedModel, stock: PreTrainedModel) -> list[dict[str, Any]]:
    ids = tokens(stock, 2)
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}

    def states(model: PreTrainedModel, **kwargs: Any) -> torch.Tensor:
        return model(**inputs, **kwargs).last_hidden_state[mask.bool()]

    def row(level: str, metric: str, a: torch.Tensor, b: torch.Tensor, **fields: Any) -> dict[str, Any]:
        largest = {"value": (a - b).abs().max().item(), "largest": b.abs().max().item()}
        return {"system": name, "level": level, "metric": metric, **largest, "low": None, "high": None, **fields}

    found = []
    for level in nested.config.levels:
        expected, form = states(nested, level=level), "stock"
        try:
            exported = nested.to_stock(level)
        except ValueError:
            exported, form = nested.to_stock(level, padded=True), "stock_padded"
        found.append(row(level, "export_difference", states(exported), expected, form=form))
        found.append(row(level, "cut_difference", states(nested.cut(level)), expected))
    found.append(row(nested.config.levels[-1], "stock_difference", states(nested), states(stock)))
    return found


def isolation(name: str, stock: PreTrainedModel, attention: str) -> list[dict[str, Any]]:
    stock.set_attn_implementation(attention)
    ids = tokens(stock, 1)
    positions = packed_position_ids([DOCUMENTS], LENGTH)
    inputs = {"input_ids": ids, "position_ids": positions}
    masked = add_packed_mask({**inputs, "segment_ids": segment_ids([DOCUMENTS], LENGTH)}, stock.config)
    alone = torch.cat([stock(part).last_hidden_state for part in ids.split(DOCUMENTS, dim=1)], dim=1)
    found = {"isolation_difference": stock(**masked), "leak_difference": stock(**inputs)}
    return [
        {
            "system": name,
            "level": attention,
            "metric": metric,
            "value": (output.last_hidden_state - alone).abs().max().item(),
            **{"low": None, "high": None},
        }
        for metric, output in found.items()
    ]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/delta_exactness.json")
    arguments = parser.parse_args()

    folder = resolve_base_model(DEFAULT_BASE_MODEL)
    minilm, base = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(), modernbert()
    own = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["budgets"]
    rows = []
    variants = {
        "minilm": {"budgets": own, "layer_order": [0, 4, 5, 2, 3, 1]},
        "minilm_mixed": {"budgets": MIXED},
        "minilm_joint": {"budgets": [[0.5, 4, 3], [0.75, 8, 5], [1.0, 12, 6]], "residual": "joint"},
    }
    for name, options in variants.items():
        nested = DeltaBertModel.from_pretrained(folder, add_pooling_layer=False, **options).eval()
        rows += exports(name, nested, minilm)
    for name, budgets in (("modernbert", BASE), ("modernbert_mixed", BASE_MIXED)):
        fields = {field: value for field, value in base.config.to_dict().items() if field != "model_type"}
        nested = DeltaModernBertModel(DeltaModernBertModel.config_class(**fields, budgets=budgets)).eval()
        nested.load_state_dict(base.state_dict())
        rows += exports(name, nested, base)
    for attention in ("sdpa", "eager"):
        rows += isolation("minilm", minilm, attention) + isolation("modernbert", base, attention)
    for row in rows:
        print(row["system"], row["level"], row["metric"], f"{row['value']:.1e}")
    print(
        write_report(arguments.out, "delta_exactness", [{"split": "random_tokens", "seeds": 1, **row} for row in rows])
    )


if __name__ == "__main__":
    main()
