"""Next-token prediction at every level: losses, distillation, documents in one row."""

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.trainers.gpt_arguments import MatryoshkaGPTTrainingArguments
from hf_matryoshka.trainers.gpt_trainer import MatryoshkaGPTTrainer

from ..modeling.gpt_models import make


LEVELS = ("d16", "d32", "d64")


def rows(count=8):
    """Rows of several documents, of unequal lengths."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for number in range(count):
        lengths = [3 + number % 4, 5, 1 + number % 3]
        ids = torch.randint(3, 100, (sum(lengths),), generator=generator).tolist()
        found.append({"input_ids": ids, "seq_lengths": lengths})
    return found


def build(folder, model=None, teacher=None, data=None, **options):
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    args = MatryoshkaGPTTrainingArguments(str(folder), **settings | options)
    data = rows() if data is None else data
    return MatryoshkaGPTTrainer(
        model=model or make(),
        args=args,
        train_dataset=data,
        eval_dataset=data,
        data_collator=CausalCollator(0),
        teacher=teacher,
    )


def predictions(model, batch, **level):
    """Logits of what is to predict, and what it is."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"][:, 1:]
    logits = model(**inputs, use_cache=False, **level).logits[:, :-1]
    return logits[labels != -100], labels[labels != -100]


def test_a_step_is_the_mean_of_cross_entropies(tmp_path):
    built, batch = build(tmp_path, level_weights=[1.0, 1.0, 4.0]), CausalCollator(0)(rows())
    model = built.model.train()
    losses = [F.cross_entropy(*predictions(model, batch, level=level)) for level in range(3)]
    expected = (losses[0] + losses[1] + 4 * losses[2]) / 6
    torch.testing.assert_close(built.compute_loss(model, batch), expected)
    logged = built._training_terms.pop(built.accelerator)
    assert logged == pytest.approx({f"loss_{n}": x.item() for n, x in zip(LEVELS, losses, strict=True)}, abs=1e-5)
    # The model's own loss is the same.
    plain = model(batch["input_ids"], labels=batch["labels"], position_ids=batch["position_ids"], level=1).loss
    torch.testing.assert_close(plain, losses[1])


@pytest.mark.parametrize("sampling", ["all", "random"])
def test_the_largest_doll_teaches_the_others_and_learns_nothing_from_it(sampling, tmp_path):
    options = {"kd_weight": 0.25, "kd_temperature": 2.0, "level_sampling": sampling, "levels_per_step": 1}
    built, batch = build(tmp_path, level_probabilities=[1e6, 1, 1], **options), CausalCollator(0)(rows())
    model = built.model.train()
    expected = []
    taught = F.softmax(predictions(model, batch, level=2)[0].detach() / 2, -1)
    for level in range(1 if sampling == "random" else 3):
        logits, labels = predictions(model, batch, level=level)
        loss = F.cross_entropy(logits, labels)
        if level < 2:
            divergence = F.kl_div(F.log_softmax(logits / 2, -1), taught, reduction="batchmean")
            loss = 0.75 * loss + 0.25 * 4 * divergence
        expected.append(loss)
    expected = sum(expected) / len(expected)
    loss = built.compute_loss(model, batch)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)
    # Evaluation is the cross-entropy alone.
    metrics = built.evaluate()
    with torch.no_grad():
        plain = F.cross_entropy(*predictions(built.model, batch, level="d16"))
    assert metrics["eval_loss_d16"] == pytest.approx(plain.item(), abs=1e-5)


def test_a_teacher_teaches_every_level(tmp_path):
    config = LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=1, eos_token_id=None)
    config.num_attention_heads = config.num_key_value_heads = 2
    teacher = LlamaForCausalLM(config)
    built, batch = build(tmp_path, teacher=teacher, kd_weight=1.0), CausalCollator(0)(rows())
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    model = built.model.train()
    taught = predictions(teacher, batch)[0].log_softmax(-1)
    losses = [
        F.kl_div(
            predictions(model, batch, level=level)[0].log_softmax(-1), taught, reduction="batchmean", log_target=True
        )
        for level in range(3)
    ]
    torch.testing.assert_close(built.compute_loss(model, batch), sum(losses) / 3)


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_accumulated_uneven_batches_are_one_large_batch(kd_weight, tmp_path):
    settings = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "max_steps": 2, "kd_weight": kd_weight}
    settings |= {"lr_scheduler_type": "constant"}
    found = []
    for size, accumulated in ((8, 1), (2, 4)):
        built = build(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated, **settings)
        built.train()
        found.append(built)
    start = dict(make().named_parameters())
    for (name, one), (_, two) in zip(*(built.model.named_parameters() for built in found), strict=True):
        torch.testing.assert_close(one, two, atol=2e-6, rtol=1e-5, msg=name)
    assert any((one - start[name]).abs().max() > 1e-3 for name, one in found[0].model.named_parameters())
    logs = [[entry["loss_d16"] for entry in built.state.log_history if "loss_d16" in entry] for built in found]
    assert logs[0] == pytest.approx(logs[1], abs=2e-5)


@pytest.mark.parametrize("sampling", ["all", "random"])
def test_a_batch_is_split_among_the_levels_of_a_step(sampling, tmp_path):
    built, batch = build(tmp_path, split_batch=True, level_sampling=sampling), CausalCollator(0)(rows())
    model, levels = built.model.train(), built._step_levels()
    assert len(levels) == (3 if sampling == "all" else 2)
    losses = [
        F.cross_entropy(*predictions(model, {k: v[place :: len(levels)] for k, v in batch.items()}, level=level))
        for place, level in enumerate(levels)
    ]
    torch.testing.assert_close(built.compute_loss(model, batch), sum(losses) / len(losses))
    # Evaluation is on all rows at every level.
    metrics = built.evaluate()
    with torch.no_grad():
        plain = F.cross_entropy(*predictions(built.model, batch, level="d16"))
    assert metrics["eval_loss_d16"] == pytest.approx(plain.item(), abs=1e-5)


@torch.no_grad()
def test_documents_of_a_row_do_not_see_each_other():
    model, collator, packed = make(), CausalCollator(0), rows(4)
    sums = counts = 0
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            logits, labels = predictions(model, collator([{"input_ids": row["input_ids"][start : start + length]}]))
            start += length
            sums, counts = sums + F.cross_entropy(logits, labels, reduction="sum"), counts + len(labels)
    logits, labels = predictions(model, collator(packed))
    assert len(labels) == counts == sum(length - 1 for row in packed for length in row["seq_lengths"])
    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction="sum"), sums)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kd_weight must be from 0 to 1, but is 1.5"):
        build(tmp_path, kd_weight=1.5)
    with pytest.raises(ValueError, match="kd_temperature must be positive, but is 0"):
        build(tmp_path, kd_temperature=0)
    with pytest.raises(ValueError, match="split_batch gives each level rows of its own, but kd_weight compares"):
        build(tmp_path, kd_weight=0.5, split_batch=True)
    with pytest.raises(ValueError, match="split_batch divides the 2 rows of a batch among 3 levels"):
        built = build(tmp_path, split_batch=True)
        built.compute_loss(built.model.train(), CausalCollator(0)(rows(2)))
    with pytest.raises(ValueError, match="a teacher needs kd_weight above 0"):
        build(tmp_path, teacher=make())
    with pytest.raises(ValueError, match="the teacher has 90 tokens and the model 100"):
        build(tmp_path, teacher=make(vocab_size=90), kd_weight=0.5)
