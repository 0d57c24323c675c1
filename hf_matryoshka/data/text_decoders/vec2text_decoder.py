"""Decodes embeddings with vec2text (Morris et al., arXiv 2310.06816), which runs in a Python of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO

import numpy as np
from tqdm.auto import tqdm

from ..embedding_conventions import check_conversion, check_lengths, convert_embeddings
from ..vectors import check_vectors


# Inversion model and corrector for GTR-T5-base as a SentenceTransformer.
GTR_ST_CORRECTOR = ("ielabgroup/vec2text_gtr-base-st_inversion", "ielabgroup/vec2text_gtr-base-st_corrector")
# What the correctors for GTR-T5-base were trained on; of others nothing is known.
_CONVENTIONS = {"gtr-base": "raw_mean", GTR_ST_CORRECTOR: "st_dense_norm"}
_GTR_WIDTH = 768
_WORKER = Path(__file__).with_name("vec2text_worker.py")


class Vec2TextDecoder:
    """A [`TextDecoder`] that writes a text for each embedding with vec2text, in the Python of another environment.

    vec2text 0.0.13 cannot run beside this package: its `InversionModel` calls `from_pretrained` in its own `__init__`,
    which transformers 5 refuses inside `from_pretrained` ("with a meta device context manager", vec2text issue 102).
    An environment that works, by the same issue:

    ```bash
    python3.11 -m venv vec2text-env
    vec2text-env/bin/pip install vec2text==0.0.13 transformers==4.46.3 accelerate==1.1.1
    ```

    The process starts and imports vec2text at once, goes on to load its models, which need the Hub the first time, and
    stays until `close()`, the end of a `with` block or of this object. `"gtr-base"` was trained on texts of 32 tokens;
    at most 128 are written.

    Args:
        python (`str` or `Path`):
            The interpreter of that environment, such as `vec2text-env/bin/python`.
        embedding_convention (`str`):
            Convention of the embeddings that will be decoded, one of `EMBEDDING_CONVENTIONS`; `None` only for a
            corrector of another encoder.
        corrector (`str` or `tuple[str, str]`, *optional*, defaults to `"gtr-base"`):
            A name that `vec2text.load_pretrained_corrector` knows, or an inversion model and a corrector as folders or
            Hub ids, such as `GTR_ST_CORRECTOR`. `"gtr-base"` reads `"raw_mean"` embeddings (vec2text issue 43: not
            normalised), `GTR_ST_CORRECTOR` `"st_dense_norm"` ones.
        num_steps (`int`, *optional*, defaults to 20):
            Corrections of the first guess; `None` keeps that.
        beam_width (`int`, *optional*, defaults to 0):
            Guesses that are kept from one correction to the next; 0 keeps one, without comparing.
        batch_size (`int`, *optional*, defaults to 16):
            Embeddings that are decoded together.
        radius (`float`, *optional*):
            [`mean_radius`] of `"raw_mean"` embeddings; needed to decode `"mean_norm"` ones with `"gtr-base"`.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Raises:
        ValueError: if the convention does not fit the corrector, or a number is out of range.
        FileNotFoundError: if there is no such interpreter.
        ImportError: if that cannot import vec2text.
    """

    def __init__(
        self,
        python: str | Path,
        *,
        embedding_convention: str | None,
        corrector: str | tuple[str, str] = "gtr-base",
        num_steps: int | None = 20,
        beam_width: int = 0,
        batch_size: int = 16,
        radius: float | None = None,
        progress: bool = True,
    ):
        if not isinstance(corrector, str):
            corrector = tuple(corrector)  # type: ignore[assignment]  # a list, which is no key
        self._target = _CONVENTIONS.get(corrector, embedding_convention)
        check_conversion(embedding_convention, self._target, radius)
        if (num_steps is not None and num_steps < 1) or beam_width < 0 or batch_size < 1:
            raise ValueError(
                "num_steps and batch_size must be at least 1 and beam_width at least 0, got "
                f"{num_steps}, {batch_size} and {beam_width}"
            )
        if num_steps is None and beam_width:
            raise ValueError(f"beam_width {beam_width} needs num_steps: only corrections keep several guesses")
        found = shutil.which(os.path.expanduser(python))
        if found is None:
            raise FileNotFoundError(
                f"there is no Python interpreter at {python}; give that of an environment with vec2text"
            )
        self.python = os.path.abspath(found)
        self.embedding_convention, self.corrector, self.radius = embedding_convention, corrector, radius
        self.progress = progress
        self._lock = threading.Lock()
        self._loaded = False
        self._start(corrector, num_steps=num_steps, beam_width=beam_width, batch_size=batch_size)

    def decode(self, embeddings: np.ndarray) -> list[str]:
        """
        Args:
            embeddings (`np.ndarray` of shape `(n, dim)`):
                Embeddings in the stated convention; 768 wide for a corrector of GTR-T5-base.

        Returns:
            `list[str]`: `n` texts.

        Raises:
            ValueError: if they are bad, have another width, or lengths that do not fit their convention.
            RuntimeError: if the process has ended; it gives the last line that it wrote as an error.
        """
        width = _GTR_WIDTH if self.corrector in _CONVENTIONS else None
        embeddings = check_vectors(embeddings, width=width, name="embeddings")
        if self._target is not None:
            # Of the two other conventions reconstructions may have any length: they get the right one here.
            if self.embedding_convention == "raw_mean":
                check_lengths(embeddings, "raw_mean")
            embeddings = convert_embeddings(embeddings, self.embedding_convention, self._target, self.radius)
        with self._lock:
            if not self._finalizer.alive:
                raise RuntimeError("the vec2text process has ended; make a new Vec2TextDecoder")
            try:
                return self._exchange(embeddings)
            except BaseException:
                # Texts that were not read, such as after an interrupt, would be taken for those of the next call.
                self.close()
                raise

    def close(self) -> None:
        """Ends the process."""
        self._finalizer()

    def __enter__(self) -> "Vec2TextDecoder":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _start(self, corrector: str | tuple[str, str], **settings) -> None:
        if isinstance(corrector, str):
            named: str | list[str] = corrector
        else:
            named = [os.path.abspath(model) if os.path.isdir(model) else model for model in corrector]
        # A place for the vectors, and to work in: the trainers of vec2text make a folder where they are.
        self._folder = tempfile.TemporaryDirectory(prefix="hf-matryoshka-vec2text-", ignore_cleanup_errors=True)
        # Where this Python finds its modules is nothing to the other one.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        # A file, not a pipe: nobody reads it while the process works.
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                [self.python, str(_WORKER), json.dumps({"corrector": named, **settings})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                env=environment,
                cwd=self._folder.name,
            )
        except OSError as error:
            raise OSError(f"{self.python} cannot be run as a Python interpreter ({error.strerror})") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._finalizer = weakref.finalize(self, _end, self._process, self._errors, self._folder)
        if self._replies.readline() != '"imported"\n':
            reason = self._last_words()
            self.close()
            raise ImportError(f"{self.python} cannot import vec2text ({reason}); install vec2text in its environment")

    def _exchange(self, embeddings: np.ndarray) -> list[str]:
        path = os.path.join(self._folder.name, "embeddings.npy")
        np.save(path, embeddings)
        if not self._loaded:
            self._receive()
            self._loaded = True
        # A process that has ended meanwhile breaks the pipe; the first reply, which lacks, tells why it ended.
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps(path) + "\n")
            self._requests.flush()
        bar = tqdm(range(len(embeddings)), desc="Decoding with vec2text", unit="text", disable=not self.progress)
        return [self._receive() for _ in bar]

    def _receive(self) -> str:
        line = self._replies.readline()
        if not line.endswith("\n"):
            code = self._process.wait()
            raise RuntimeError(f"the vec2text process of {self.python} ended with code {code}: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote no error")


def _end(process: subprocess.Popen, errors: IO[bytes], folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe, see `_start`
    process.stdout.close()  # type: ignore[union-attr]
    errors.close()
    folder.cleanup()
