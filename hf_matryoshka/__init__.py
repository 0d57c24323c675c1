"""Train one Matryoshka model, ship many sizes of it.

The public names below are imported lazily: `import hf_matryoshka` itself loads neither torch nor transformers.
"""

import importlib
from pathlib import Path
from typing import Any


__version__ = "0.1.0"

# public name -> sub-module that defines it
_EXPORTS = {
    "AdaptorTrainer": "trainers.adaptor_trainer",
    "AdaptorTrainingArguments": "trainers.adaptor_arguments",
    "Curve": "evaluation.curve",
    "DeltaBertConfig": "modeling.configuration_delta_bert",
    "DeltaBertForMaskedLM": "modeling.modeling_delta_bert",
    "DeltaBertForSequenceClassification": "modeling.modeling_delta_bert",
    "DeltaBertModel": "modeling.modeling_delta_bert",
    "DeltaModernBertConfig": "modeling.configuration_delta_modernbert",
    "DeltaModernBertForMaskedLM": "modeling.modeling_delta_modernbert",
    "DeltaModernBertForSequenceClassification": "modeling.modeling_delta_modernbert",
    "DeltaModernBertModel": "modeling.modeling_delta_modernbert",
    "DeltaTrainer": "trainers.delta_trainer",
    "DeltaTrainingArguments": "trainers.delta_arguments",
    "DeltaEmbeddingTrainer": "trainers.delta_embedding_trainer",
    "DeltaEmbeddingTrainingArguments": "trainers.delta_embedding_arguments",
    "ExportError": "hub.gate",
    "Budget": "modeling.budgets",
    "CardDetails": "hub.cards",
    "Family": "hub.family",
    "FractalFormerConfig": "modeling.configuration_fractalformer",
    "FractalFormerForCausalLM": "modeling.modeling_fractalformer",
    "FractalFormerModel": "modeling.modeling_fractalformer",
    "Frontier": "modeling.dimension_frontier",
    "FunnelRecipe": "recipes.funnel_recipe",
    "FunnelTrainer": "trainers.funnel_trainer",
    "FunnelTrainingArguments": "trainers.funnel_arguments",
    "GlueTrainer": "trainers.glue_trainer",
    "GPTRecipe": "recipes.gpt_recipe",
    "InfeasibleConstraint": "modeling.dimension_frontier",
    "MambaRecipe": "recipes.mamba_recipe",
    "MambaTrainer": "trainers.mamba_trainer",
    "MambaTrainingArguments": "trainers.mamba_arguments",
    "MatryoshkaAdaptor": "modeling.st_matryoshka_adaptor",
    "MatryoshkaAdaptorConfig": "modeling.configuration_matryoshka_adaptor",
    "MatryoshkaAdaptorModel": "modeling.modeling_matryoshka_adaptor",
    "MambaState": "modeling.mamba_streaming",
    "MatryoshkaFunnel": "modeling.st_matryoshka_funnel",
    "MatryoshkaFunnelConfig": "modeling.configuration_matryoshka_funnel",
    "MatryoshkaFunnelModel": "modeling.modeling_matryoshka_funnel",
    "MatryoshkaGPTConfig": "modeling.configuration_matryoshka_gpt",
    "MatryoshkaGPTForCausalLM": "modeling.modeling_matryoshka_gpt",
    "MatryoshkaGPTModel": "modeling.modeling_matryoshka_gpt",
    "MatryoshkaGPTTrainer": "trainers.gpt_trainer",
    "MatryoshkaGPTTrainingArguments": "trainers.gpt_arguments",
    "MatryoshkaMambaConfig": "modeling.configuration_matryoshka_mamba",
    "MatryoshkaMambaModel": "modeling.modeling_matryoshka_mamba",
    "MatryoshkaMambaTransformer": "modeling.st_matryoshka_mamba",
    "MatryoshkaTruncate": "modeling.st_matryoshka_truncate",
    "NestedTransformer": "modeling.st_nested_transformer",
    "MaskedRows": "data.mask_file",
    "PackedMlmCollator": "data.packed_collator",
    "MatryoshkaTrainer": "trainers.matryoshka_trainer",
    "MatryoshkaTrainingArguments": "trainers.matryoshka_arguments",
    "AdaptorRecipe": "recipes.adaptor_recipe",
    "AdaptorVectors": "recipes.adaptor_vectors",
    "AdaptiveSearch": "evaluation.adaptive_dims",
    "Certificate": "evaluation.certificate",
    "CorpusTextDecoder": "data.text_decoders.corpus_decoder",
    "DdsConfig": "trainers.dds_model",
    "DeltaPack": "trainers.delta_pack",
    "SearchSpace": "lsbo.search_space",
    "StagedLSBO": "lsbo.staged_lsbo",
    "TextDecoder": "data.text_decoders.text_decoder",
    "Vec2TextDecoder": "data.text_decoders.vec2text_decoder",
    "apply_delta_pack": "trainers.delta_pack",
    "choose_gates": "surgery.funnel_gates",
    "certify_run": "recipes.certify",
    "choose_draft": "evaluation.draft_choice",
    "combine": "surgery.combine",
    "convert_embeddings": "data.embedding_conventions",
    "create_adaptor": "surgery.adaptor_init",
    "detect_convention": "data.convention_encoders",
    "evaluate_levels": "evaluation.evaluate_levels",
    "export_family": "hub.export_family",
    "export_level": "hub.export",
    "fold_glue": "surgery.combine",
    "grow": "surgery.grow",
    "hierarchical_init": "surgery.hierarchical_init",
    "init_funnel": "surgery.funnel_init",
    "init_bank_from_differences": "trainers.dds_bank",
    "load_beir": "data.beir",
    "load_encoder": "data.convention_encoders",
    "load_family": "hub.family",
    "mamba_sentence_encoder": "modeling.st_matryoshka_mamba",
    "mean_radius": "data.embedding_conventions",
    "make_optimizer": "lsbo.optimizers",
    "measure_decoder_importance": "surgery.decoder_importance",
    "measure_importance": "surgery.importance",
    "measure_frontier": "evaluation.measure_frontier",
    "nest_decoder": "surgery.nest_decoder",
    "nest_sentence_encoder": "surgery.nest_encoder",
    "pack_texts": "data.pack",
    "phase_weights": "trainers.three_phases",
    "push_family": "hub.push",
    "push_run": "hub.push_run",
    "optimize_funnel": "recipes.optimize",
    "order_layers_by_importance": "surgery.layer_order",
    "round_trip_cosine": "data.text_decoders.text_decoder",
    "run_ablation": "recipes.ablate",
    "rewire_by_importance": "surgery.rewire",
    "run_full_evaluation": "evaluation.masked_lm",
    "scale_delta": "surgery.delta_gates",
    "search_gates": "surgery.gate_search",
    "save_self_contained": "hub.self_contained",
    "select_level": "hub.family",
    "train_adaptor": "recipes.train_adaptor",
    "train_funnel": "recipes.train_funnel",
    "train_gpt": "recipes.train_gpt",
    "train_mamba": "recipes.train_mamba",
    "with_budgets": "surgery.rebudget",
    "with_convention": "data.convention_encoders",
    "with_onednn_linears": "modeling.onednn_layers",
    "write_mask_file": "data.mask_file",
}
__all__ = sorted(_EXPORTS)

# In a bare checkout (not installed) `modeling/`, `trainers/` and `hub_cards/` lie beside this package, not inside it.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "modeling" / "nested_layers.py").is_file() and str(_ROOT) not in __path__:
    __path__.append(str(_ROOT))


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
