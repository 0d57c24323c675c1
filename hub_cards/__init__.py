"""Templates of the cards (Jinja2, filled in by `hf_matryoshka.hub`), and the page that a Space gets as it is."""
