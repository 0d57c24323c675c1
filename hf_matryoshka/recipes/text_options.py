"""The options that say which texts an encoder is distilled on, the same in all recipes that distil embeddings."""

from dataclasses import dataclass, field


@dataclass
class TextOptions:
    """Files with texts, those to leave out, and how much is read of them."""

    texts: list[str] | None = field(
        default=None, metadata={"help": "Files with texts (.txt, .jsonl, .csv, .tsv, or .gz of these), BEIR folders."}
    )
    text_field: list[str] | None = field(
        default=None,
        metadata={"help": "Field of the .jsonl files or column of the tables, one for all or one a file ('text')."},
    )
    exclude: list[str] | None = field(
        default=None, metadata={"help": "Files with texts that must not be trained on, such as those of a test."}
    )
    exclude_field: list[str] | None = field(default=None, metadata={"help": "As text_field, for exclude."})
    split_sentences: bool = field(
        default=False, metadata={"help": "Add the sentences of texts that have several as texts of their own."}
    )
    max_texts_per_file: int | None = field(
        default=None, metadata={"help": "Texts (or pairs) of a file at most, drawn by the seed; all by default."}
    )
    max_sentences_per_file: int | None = field(
        default=None,
        metadata={
            "help": "With split_sentences: so many sentences of a file at most, beside max_texts_per_file texts; by "
            "default these count both."
        },
    )
    max_characters: int = field(default=2000, metadata={"help": "Texts are cut to so many characters."})
    split_passages: bool = field(
        default=False,
        metadata={"help": "Split texts of more than max_characters at the ends of sentences instead of cutting them."},
    )
    max_length: int = field(default=128, metadata={"help": "Texts are cut to so many tokens in training."})
    validation_fraction: float = field(
        default=0.01, metadata={"help": "Part of the texts held out to report the loss on; 0: none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of everything random."})

    def check_texts(self) -> None:
        """Raise `ValueError` if there are no files, or an option has no valid value."""
        if not self.texts:
            raise ValueError("give texts: files to distil on")
        for paths, names in (("texts", "text_field"), ("exclude", "exclude_field")):
            count, given = len(getattr(self, paths) or []), getattr(self, names)
            if given and count and len(given) not in (1, count):
                raise ValueError(f"{names} has {len(given)} names for {count} files; give one, or one a file")
        for name in ("max_texts_per_file", "max_sentences_per_file", "max_characters", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if self.max_sentences_per_file is not None and not self.split_sentences:
            raise ValueError("max_sentences_per_file needs split_sentences")
        if not 0 <= self.validation_fraction < 0.9:
            raise ValueError(f"validation_fraction must be in [0, 0.9), but is {self.validation_fraction}")
