"""An objective of a text for `hf-matryoshka optimize`, see examples/README.md: any function of a text to a number."""

from functools import cache

from sentence_transformers import SentenceTransformer

from hf_matryoshka import load_encoder


QUESTION = "How do I stop training when the loss no longer gets better?"


@cache
def model() -> SentenceTransformer:
    return load_encoder("sentence-transformers/all-MiniLM-L6-v2")


def answers(text: str) -> float:
    """How near a text is to a question: the cosine of their embeddings."""
    question, answer = model().encode([QUESTION, text], normalize_embeddings=True, show_progress_bar=False)
    return float(question @ answer)
