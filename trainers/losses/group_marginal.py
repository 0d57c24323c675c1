"""Predicting the group of the next token."""

import torch
from torch.nn import functional as F


def group_marginal_loss(logits: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    r"""Cross-entropy of the group of the next token: \\( -\log \sum_{j \in G(y)} p_j \\).

    Of the probability of a group it says nothing about its shares inside, so a finer prediction costs nothing here.

    Args:
        logits (`torch.Tensor` of shape `(tokens, vocab_size)`): Predictions.
        targets (`torch.LongTensor` of shape `(tokens,)`): The tokens that follow.
        groups (`torch.LongTensor` of shape `(vocab_size,)`): Number of the group of each token.

    Returns:
        `torch.Tensor`: A scalar, the mean over the tokens.
    """
    return F.nll_loss(group_log_probabilities(logits, groups), groups[targets], reduction="sum") / max(1, len(targets))


def group_log_probabilities(logits: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Logarithm of the probability of each group, `(tokens, groups)`."""
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    count = int(groups.max()) + 1
    # A sum of exponentials by group, from which the largest of each was taken out.
    index = groups.expand_as(log_probabilities)
    largest = log_probabilities.new_full((len(logits), count), -torch.inf)
    largest = largest.scatter_reduce(1, index, log_probabilities.detach(), "amax")
    shifted = (log_probabilities - largest.gather(1, index)).exp()
    return torch.zeros_like(largest).scatter_add(1, index, shifted).log() + largest


def soft_group_loss(logits: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    r"""Cross-entropy with a uniform distribution over the group of the next token, as the first Matryoshka GPT had it:
    \\( -\frac{1}{|G|} \sum_{j \in G(y)} \log p_j \\).

    It is at least [`group_marginal_loss`] plus the logarithm of the size of the group, and makes the tokens of a group
    equally likely.

    Args:
        logits, targets, groups: As in [`group_marginal_loss`].

    Returns:
        `torch.Tensor`: A scalar, the mean over the tokens.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    sizes = torch.bincount(groups)
    index = groups.expand_as(log_probabilities)
    sums = log_probabilities.new_zeros(len(logits), len(sizes)).scatter_add(1, index, log_probabilities)
    own = groups[targets]
    return -(sums.gather(1, own[:, None])[:, 0] / sizes[own]).sum() / max(1, len(targets))
