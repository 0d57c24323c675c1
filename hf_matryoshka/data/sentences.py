"""Sentences of plain English text, by punctuation."""

import re


_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
# A dot after these, or after a single capital (an initial), does not end a sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|etc|cf|vs|resp|approx|Fig|Figs|Eq|Eqs|Dr|Mr|Ms|Mrs|Prof|No|St)|\b[A-Z])\.$"
)


def split_sentences(text: str) -> list[str]:
    """Splits text into sentences.

    Args:
        text (`str`):
            Text; runs of white space count as one space.

    Returns:
        `list[str]`: the sentences, stripped, in order; joined by spaces they give the text back.
    """
    text = " ".join(text.split())
    sentences, start = [], 0
    for boundary in _BOUNDARY.finditer(text):
        closing = boundary.group().rstrip()
        if _ABBREVIATION.search(text[start : boundary.start()]) and not closing:
            continue
        sentences.append(text[start : boundary.start() + len(closing)])
        start = boundary.end()
    sentences.append(text[start:])
    return [sentence for sentence in sentences if sentence]


def split_passages(text: str, max_characters: int) -> list[str]:
    """Splits text into passages of whole sentences, each as long as it may be.

    Args:
        text (`str`): Text; if it is not longer than `max_characters`, it is the only passage, as it is.
        max_characters (`int`): Longest passage; longer sentences are cut to it.

    Returns:
        `list[str]`: the passages in order.
    """
    if len(text) <= max_characters:
        return [text]
    passages = [""]
    for sentence in split_sentences(text):
        joined = f"{passages[-1]} {sentence}".lstrip()
        if len(joined) <= max_characters:
            passages[-1] = joined
        else:
            passages.append(sentence[:max_characters])
    return [passage for passage in passages if passage]
