"""The options that say which texts a language model is trained on, the same in all recipes that pack them."""

from dataclasses import dataclass, field


@dataclass
class CorpusOptions:
    """Texts from one of `texts`, `dataset_name` and `pretokenized_path`, and the part of them that is held out."""

    texts: list[str] | None = field(
        default=None, metadata={"help": "Text files (.txt, .jsonl, or .gz of these) or BEIR folders."}
    )
    text_field: list[str] | None = field(
        default=None,
        metadata={"help": "Field of the .jsonl files that holds the text, one for all or one a file ('text')."},
    )
    balance: bool = field(
        default=False, metadata={"help": "Take equally many characters of each file, as the smallest has."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Data set of the Hub (or a local one), read as a stream."}
    )
    dataset_split: str = field(default="train", metadata={"help": "Its split."})
    dataset_column: str = field(default="text", metadata={"help": "Its column that holds the text."})
    max_documents: int | None = field(
        default=None, metadata={"help": "Documents read of the data set, at most; all by default."}
    )
    pretokenized_path: str | None = field(
        default=None, metadata={"help": "Rows that hf-matryoshka pack made; their tokenizer is used."}
    )
    validation_path: str | None = field(
        default=None, metadata={"help": "Such rows to report the loss on, instead of a part of pretokenized_path."}
    )
    max_length: int = field(default=512, metadata={"help": "Tokens of a packed row."})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "Part of the texts held out, by document, to report the loss on; 0: none."}
    )
    validation_rows: int = field(default=2048, metadata={"help": "Held-out rows that are scored, at most."})
    num_proc: int = field(default=1, metadata={"help": "Processes that tokenise."})
    seed: int = field(default=0, metadata={"help": "Seed of everything random."})

    def check_corpus(self) -> None:
        """Raise `ValueError` if there is not one source, or an option has no valid value."""
        sources = [name for name in ("texts", "dataset_name", "pretokenized_path") if getattr(self, name)]
        if len(sources) != 1:
            found = " and ".join(sources) or "none of them"
            raise ValueError(f"give exactly one of texts, dataset_name and pretokenized_path, but got {found}")
        if self.validation_path and not self.pretokenized_path:
            raise ValueError("validation_path goes with pretokenized_path; of texts a part is held out")
        if self.text_field and self.texts and len(self.text_field) not in (1, len(self.texts)):
            raise ValueError(
                f"text_field has {len(self.text_field)} names for {len(self.texts)} files; give one, or one a file"
            )
        for name in ("max_documents", "max_length", "num_proc", "validation_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if not 0 <= self.validation_fraction < 0.9:
            raise ValueError(f"validation_fraction must be in [0, 0.9), but is {self.validation_fraction}")
