"""What a card tells the Hub: its YAML header."""

from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from .eval_results import model_index, repo_scores


if TYPE_CHECKING:
    from .cards import CardFacts


def card_metadata(facts: "CardFacts", title: str) -> ModelCardData:
    """The header of a card.

    Args:
        facts ([`CardFacts`]): What the card says.
        title (`str`): Name of the model.
    """
    manifest, details = facts.manifest, facts.details
    # Whether the repo is one of sentence-transformers; only adaptors and sentence encoders have this field.
    with_base = facts.fields.get("with_base")
    task = facts.fields.get("pipeline_tag") or ("sentence-similarity" if with_base else "feature-extraction")
    tags = ["matryoshka", manifest.model_type.replace("_", "-")]
    if with_base is not None:
        tags.insert(0, "feature-extraction")
    if with_base:
        tags.insert(0, "sentence-transformers")
    if facts.onnx is not None:
        tags.append("onnx")
    results = []
    if details.eval_title is not None:
        results = model_index(
            repo_scores(manifest),
            dataset_id=details.eval_dataset,
            name=details.eval_title,
            task=details.eval_task or task,
        )
    return ModelCardData(
        language=details.language if isinstance(details.language, str | None) else list(details.language),
        license=details.license,
        base_model=details.base_model,
        # A repo without the base weights is an adapter to the Hub.
        base_model_relation=("adapter" if with_base is False else "finetune") if details.base_model else None,
        datasets=list(details.datasets) or None,
        library_name="sentence-transformers" if with_base else "transformers",
        pipeline_tag=task,
        tags=[*tags, *details.tags],
        model_name=title if results else None,
        eval_results=results or None,
    )
