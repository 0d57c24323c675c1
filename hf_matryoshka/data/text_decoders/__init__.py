"""Embeddings to texts: from a corpus, or with vec2text."""
