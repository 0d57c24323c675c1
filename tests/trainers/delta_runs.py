"""Short trainings of small Delta encoders."""

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

import hf_matryoshka
from hf_matryoshka.trainers import delta_trainer, matryoshka_arguments
from hf_matryoshka.trainers.delta_arguments import DeltaTrainingArguments
from hf_matryoshka.trainers.delta_trainer import DeltaTrainer


BUDGETS = [[0.25, 2, 1], [0.5, 4, 3], [1.0, 4, 4]]
NAMES = ("w0.25-h2-d1", "w0.5-h4-d3", "w1.0-h4-d4")
ARCHITECTURES = ["DeltaBert", "DeltaModernBert"]


def make(architecture="DeltaBert", dropout=0.0, seed=0, **fields):
    """A model with weights that are the same every time."""
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4, "pad_token_id": 0}
    sizes |= {"intermediate_size": 32, "budgets": BUDGETS, "initializer_range": 0.1}
    if architecture == "DeltaBert":
        sizes |= {"max_position_embeddings": 64}
        sizes |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    else:
        sizes |= {"local_attention": 6, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        sizes |= dict.fromkeys(("embedding_dropout", "mlp_dropout", "attention_dropout"), dropout)
    config = getattr(hf_matryoshka, f"{architecture}Config")(**(sizes | fields))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(hf_matryoshka, f"{architecture}ForMaskedLM")(config)


def rows(count=16, length=12):
    """Rows of random tokens with 1 to 11 labels each."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 40, (count, length), generator=generator)
    labels = ids.clone()
    for row in range(count):
        labels[row, : length - 1 - (7 * row) % 11] = -100
    mask = torch.ones_like(ids)
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist(), "attention_mask": mask.tolist()})


def trainer(folder, model=None, teacher=None, data=None, evaluated=None, collator=None, **arguments) -> DeltaTrainer:
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return DeltaTrainer(
        model=make() if model is None else model,
        args=DeltaTrainingArguments(output_dir=str(folder), **settings),
        train_dataset=rows() if data is None else data,
        eval_dataset=rows() if evaluated is None else evaluated,
        data_collator=collator,
        teacher=teacher,
    )


def train(folder, resume=None, **arguments) -> DeltaTrainer:
    built = trainer(folder, **arguments)
    built.train(resume_from_checkpoint=resume)
    return built


def history(built, name="loss"):
    return [row[name] for row in built.state.log_history if name in row and "loss" in row]


def batch(count=8):
    return {name: torch.tensor(values) for name, values in rows()[:count].items()}


def cross_entropy(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def warned(function, messages):
    """What `function` returns; warnings of the trainer and of its arguments go to `messages`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (matryoshka_arguments, delta_trainer):
            patch.setattr(module.logger, "warning", messages.append)
        return function()
