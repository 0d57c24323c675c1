"""The heads of the Delta encoders, as far as they are the same."""

import torch
from transformers.modeling_outputs import MaskedLMOutput, ModelOutput, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple


class BudgetedMaskedLMMixin:
    """Masked language modeling with an encoder whose config has budgets; a model defines [`predict`]."""

    # What the labels have where nothing is asked.
    ignore_index: int = -100

    def predict(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        """Logits `(..., vocab_size)` of hidden states `(..., hidden)` of a level, given by its number."""
        raise NotImplementedError(f"{type(self).__name__} must define `predict`")

    def _head_macs(self, hidden: int) -> int:
        return hidden * hidden + hidden * self.config.vocab_size

    @can_return_tuple
    def forward(
        self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs
    ) -> MaskedLMOutput:
        """
        Args:
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): Token ids, -100 where nothing is asked.
                With `config.sparse_prediction` only the logits of the other positions are computed.
            kwargs: As for the encoder, `level` among them; `num_items_in_batch` divides the summed loss.
        """
        outputs = self.base_model(input_ids, **kwargs)
        hidden_states = outputs.last_hidden_state
        if self.config.sparse_prediction and labels is not None:
            asked = labels != self.ignore_index
            hidden_states, labels = hidden_states[asked], labels[asked]
        logits = self.predict(hidden_states, self.config.level_index(kwargs.get("level")))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class BudgetedClassifierMixin:
    """Classification of texts with an encoder whose config has budgets; a model defines [`classify`]."""

    def classify(
        self, outputs: ModelOutput, attention_mask: torch.Tensor | None, level: int | str | None
    ) -> torch.Tensor:
        """Logits `(batch, num_labels)` of what the encoder gave at a level."""
        raise NotImplementedError(f"{type(self).__name__} must define `classify`")

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """
        Args:
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 at padding.
            labels (`torch.Tensor` of shape `(batch,)`, *optional*): Classes, or numbers for a regression.
            kwargs: As for the encoder, `level` among them.
        """
        outputs = self.base_model(input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.classify(outputs, attention_mask, kwargs.get("level"))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
