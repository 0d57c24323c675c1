"""What sentence-transformers itself has for smaller embeddings, trained on a task of `peer_tasks`."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peer_tasks import PeerTask
from safetensors.torch import load_model, save_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
)
from sentence_transformers.base.sampler import BatchSamplers, DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import (
    CoSENTLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sparse_encoder.losses import CSRLoss
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder
from tqdm.auto import trange
from transformers import set_seed

from hf_matryoshka import AdaptorVectors
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.recipes.cpu_memory import keep_freed_memory


WRAPPERS: dict[str, Callable[..., torch.nn.Module]] = {
    "st_matryoshka": MatryoshkaLoss,
    "st_matryoshka_2d": Matryoshka2dLoss,
}
BATCH, RATE = 64, 2e-5
# One pass over the training rows, but at least so many steps.
STEPS = 150
# The sizes of the documentation's example, but for the width; batch and rate for vectors that are there already.
CSR_WIDTH, CSR_ACTIVE, CSR_STEPS, CSR_BATCH, CSR_RATE = 4, 32, 2000, 512, 1e-3


class Apart(DefaultBatchSampler):
    """Batches in which each group occurs once at most, drawn anew in each epoch; what does not fit is left out."""

    groups: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(self.seed + self.epoch)
        rows = rng.sample(range(len(self.groups)), len(self.groups))
        for _ in range(len(self)):
            batch, others, taken = [], [], set()
            for row in rows:
                group = self.groups[row]
                if len(batch) < self.batch_size and group not in taken:
                    taken.add(group)
                    batch.append(row)
                else:
                    others.append(row)
            rows = others
            if len(batch) < 2:
                return
            yield batch


def fine_tune(
    system: str,
    task: PeerTask,
    load: Callable[[], SentenceTransformer],
    dims: list[int],
    run: Path,
    seed: int,
    steps: int | None = None,
) -> tuple[SentenceTransformer, float]:
    """The whole encoder, trained with one of `WRAPPERS` around the usual loss of such rows.

    Args:
        system (`str`): A key of `WRAPPERS`.
        task (`PeerTask`): What to train on.
        load (`Callable`): Gives the model to start from.
        dims (`list[int]`): The levels.
        run (`Path`): Folder of the run; if it is finished, it is loaded.
        seed (`int`): Of the order of the rows.
        steps (`int`, *optional*): Instead of one pass, but at least `STEPS`.

    Returns:
        `tuple[SentenceTransformer, float]`: The model and the seconds that training took.
    """
    done = run / "seconds.json"
    if not done.is_file():
        set_seed(seed)
        model, rows = load(), Dataset.from_dict(task.columns)
        base = CoSENTLoss(model) if "score" in task.columns else MultipleNegativesRankingLoss(model)
        steps = steps or max(STEPS, -(-len(rows) // BATCH))
        sampler = BatchSamplers.NO_DUPLICATES if "anchor" in task.columns else BatchSamplers.BATCH_SAMPLER
        if task.groups is not None:
            sampler = type("GroupsApart", (Apart,), {"groups": task.groups})
        arguments = SentenceTransformerTrainingArguments(
            str(run / "checkpoints"),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=0.1,
            bf16=True,
            seed=seed,
            batch_sampler=sampler,
            save_strategy="no",
            report_to=[],
            logging_steps=20,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=rows, loss=WRAPPERS[system](model, base, dims)
        )
        # As our own trainings do.
        keep_freed_memory()
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        model.save(str(run / "model"), create_model_card=False)
        with write_beside(done) as temporary:
            temporary.write_text(json.dumps(seconds))
    return SentenceTransformer(str(run / "model"), device="cpu"), json.loads(done.read_text())


def cut_layers(model: SentenceTransformer, count: int) -> SentenceTransformer:
    """The model with its first layers only, as the documentation of `Matryoshka2dLoss` shows."""
    encoder = model[0].auto_model.encoder
    encoder.layer = encoder.layer[:count]
    return model


def train_csr(vectors: AdaptorVectors, run: Path, seed: int, steps: int | None = None) -> tuple[SparseEncoder, float]:
    """CSR as its paper has it (arXiv 2503.01776): a sparse autoencoder on the embeddings of a frozen encoder.

    Args:
        vectors ([`AdaptorVectors`]): Embeddings; pairs are documents with what asks for them, labelled or taken from
            them.
        run (`Path`): Folder of the run; if it is finished, it is loaded.
        seed (`int`): Of weights and batches.
        steps (`int`, *optional*): Instead of `CSR_STEPS`.

    Returns:
        `tuple[SparseEncoder, float]`: What turns embeddings into sparse ones, and the seconds that training took.
    """
    set_seed(seed)
    width = vectors.corpus.shape[1]
    coder = SparseAutoEncoder(width, CSR_WIDTH * width, CSR_ACTIVE, k_aux=512)
    model = SparseEncoder(modules=[coder], device="cpu")
    path, done = run / "coder.safetensors", run / "seconds.json"
    if not done.is_file():
        asking = [part for part in (vectors.titles, vectors.sentences, vectors.queries) if part is not None]
        anchors = torch.from_numpy(np.concatenate([part.vectors for part in asking]))
        relevance = [list(grades) for part in asking for grades in part.relevance]
        usable = [row for row, documents in enumerate(relevance) if documents]
        corpus, rng, loss = torch.from_numpy(vectors.corpus), random.Random(seed), CSRLoss(model)
        with torch.no_grad():
            # The start that sparse autoencoders are given: the mean taken off, columns of unit length.
            coder.pre_bias.copy_(corpus.mean(0))
            coder.encoder.weight.copy_(torch.nn.functional.normalize(coder.encoder.weight, dim=1))
        optimizer = torch.optim.Adam(model.parameters(), lr=CSR_RATE)
        start = time.perf_counter()
        model.train()
        for _ in trange(steps or CSR_STEPS, desc="csr", mininterval=10):
            rows = rng.sample(usable, min(CSR_BATCH, len(usable)))
            documents = [rng.choice(relevance[row]) for row in rows]
            sides = [{"sentence_embedding": anchors[rows]}, {"sentence_embedding": corpus[documents]}]
            optimizer.zero_grad()
            sum(loss(sides).values()).backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        run.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as temporary:
            save_model(coder, str(temporary))
        with write_beside(done) as temporary:
            temporary.write_text(json.dumps(seconds))
    load_model(coder, path)
    return model.eval(), json.loads(done.read_text())


@torch.inference_mode()
def sparse(model: SparseEncoder, vectors: np.ndarray, active: int) -> np.ndarray:
    """Sparse embeddings of full ones, with so many numbers that are not zero, as dense arrays."""
    parts = torch.from_numpy(vectors).split(4096)
    return np.concatenate(
        [model({"sentence_embedding": part}, max_active_dims=active)["sentence_embedding"].numpy() for part in parts]
    )
