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
