"""Objectives, one a file. Every loss is a mean, so that its weight means the same at any batch size and width."""
