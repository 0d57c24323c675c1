"""Text in, vectors out: retrieval data sets, splits, and embeddings that are encoded once and kept as Arrow."""
