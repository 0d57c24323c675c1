"""Configuration of the Delta ModernBERT."""

from huggingface_hub.dataclasses import strict
from transformers import ModernBertConfig

from .budgets import BudgetsMixin
from .levels import check_activation


AUTO_MAP = {
    "AutoConfig": "configuration_delta_modernbert.DeltaModernBertConfig",
    "AutoModel": "modeling_delta_modernbert.DeltaModernBertModel",
    "AutoModelForMaskedLM": "modeling_delta_modernbert.DeltaModernBertForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_delta_modernbert.DeltaModernBertForSequenceClassification",
}


@strict
class DeltaModernBertConfig(BudgetsMixin, ModernBertConfig):
    r"""
    Configuration of a ModernBERT whose levels are budgets of width, heads and depth. The config of a stock ModernBERT
    is one, too: its weights (also those of Ettin and RexBERT, which are ModernBERTs) load unchanged, with the default
    budgets.

    Args:
        budgets (`list[list]`, *optional*):
            The levels, smallest first, each `[width, heads, depth]` and inside the last, which is the full size.
            `width` is a share of the feed-forward columns, or a list with one share a layer (Mix'n'Match). By default
            half, three quarters and all of the width and the layers; with `residual="joint"` also of the heads.
        residual (`str`, *optional*, defaults to `"full"`):
            `"full"`: the hidden states of every level have the full width; fewer heads then have no stock form except
            one padded with zeros. `"joint"`: their width is `head_dim` times the heads, and every level with one
            feed-forward width is a stock ModernBERT.
        head_dim (`int`, *optional*):
            Width of a head; by default `hidden_size / num_attention_heads`.
        full_intermediate_size (`int`, *optional*):
            The feed-forward columns that a width of 1 stands for; `intermediate_size` by default, larger in a model
            that was cut.
        layer_order (`list[int]`, *optional*):
            The layers, the one that the smallest budgets need most first: a budget of `d` layers runs the first `d` of
            these, from the input on, and a list of widths has one for each of these. By default as they lie, so that
            a budget runs a prefix of the layers. It starts with layer 0: that one has no norm before its attention, as
            only the first layer of a stock ModernBERT may.
        budget_norms (`bool`, *optional*, defaults to `False`):
            Whether each budget has its own gain in every norm, and its own shift where `norm_bias` is set, added to
            what all share: 0 at first, folded into the norms of a stock export (as in LLaMaFlex and, for batch norms,
            in slimmable networks, arXiv 1812.08928).
        delta_gates (`bool`, *optional*, defaults to `False`):
            Whether what a layer has beyond the smallest budget is multiplied by a gate, one for its attention and one
            for its feed-forward network; 1 at first, folded into the output weights of a stock export. At 0 every
            budget computes the smallest one.
        token_routing (`bool`, *optional*, defaults to `False`):
            Whether each layer predicts how much its delta would change a token, so that a forward with a
            [`TokenRouting`] can run some tokens at the smallest size.
        preview_rank (`int`, *optional*, defaults to 16):
            Rank of these predictions.

    All other arguments are those of [`~transformers.ModernBertConfig`]. `per_layer_config` may set the
    `intermediate_size` of layers, which then are those of the largest budget.
    """

    model_type = "delta_modernbert"
    stock_model_type = "modernbert"

    budgets: list[list[float | int | list[float | int]]] | None = None
    residual: str = "full"
    head_dim: int | None = None
    full_intermediate_size: int | None = None
    layer_order: list[int] | None = None
    budget_norms: bool = False
    delta_gates: bool = False
    token_routing: bool = False
    preview_rank: int = 16

    def __post_init__(self, **kwargs):
        kwargs["per_layer_config"] = self._set_budgets(kwargs.get("per_layer_config"))
        # `save_pretrained` writes only the class that is saved; every AutoClass must work from every saved folder.
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    def validate_activation(self) -> None:
        check_activation(hidden_activation=self.hidden_activation, classifier_activation=self.classifier_activation)

    def validate_head_dim(self) -> None:
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim {self.head_dim} (by default hidden_size / num_attention_heads) must be even: channels are "
                "rotated in pairs"
            )

    def validate_first_layer(self) -> None:
        if self.layer_order and self.layer_order[0] != 0:
            raise ValueError(
                f"layer_order {self.layer_order} must start with 0: the first layer of a ModernBERT has no norm "
                "before its attention, so no other can take its place"
            )


DeltaModernBertConfig.register_for_auto_class()

__all__ = ["DeltaModernBertConfig"]
