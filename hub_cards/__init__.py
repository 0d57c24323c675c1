"""Templates of the model cards (Jinja2, filled in by `hf_matryoshka.hub.cards`)."""
