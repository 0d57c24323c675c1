"""All dolls of a FractalFormer in one step, each on its own stream."""

import pytest
import torch

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.trainers.fractal_trainer import FractalTrainer
from hf_matryoshka.trainers.gpt_arguments import MatryoshkaGPTTrainingArguments

from ..modeling.test_fractalformer import make
from .test_gpt_trainer import predictions, rows


LEVELS = ("L2.0", "L2.1", "L2.2", "L2.3", "L1.0", "L1.1", "L0.0")


def streams(numbers):
    return [row | {"stream": number} for row, number in zip(rows(len(numbers)), numbers, strict=True)]


def build(folder, data, **options):
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    args = MatryoshkaGPTTrainingArguments(str(folder), **settings | options)
    return FractalTrainer(
        model=make(), args=args, train_dataset=data, eval_dataset=data, data_collator=CausalCollator(0)
    )


def own_losses(model, batch):
    """Cross-entropy of each doll on its rows."""
    found = {}
    for level in LEVELS:
        depth, place = model.config.place(level)
        chosen = batch["streams"] // 2 ** (2 - depth) == place
        if chosen.any():
            own = {name: value[chosen] for name, value in batch.items() if name != "streams"}
            found[level] = torch.nn.functional.cross_entropy(*predictions(model, own, level=level))
    return found


def test_each_doll_sees_the_rows_of_those_inside_it(tmp_path):
    data = streams([0, 1, 2, 3, 0, 1, 2, 3])
    built, batch = build(tmp_path, data), CausalCollator(0)(data)
    model = built.model.train()
    losses = own_losses(model, batch)
    assert list(losses) == list(LEVELS)
    # Each depth counts as much as the others.
    expected = sum(
        sum(losses[level] for level in LEVELS if level.startswith(f"L{depth}.")) / 2**depth for depth in range(3)
    )
    torch.testing.assert_close(built.compute_loss(model, batch), expected / 3)
    expected.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    # Every doll has weights that no other row than its own moves.
    gradient = model.model.layers[0].mlp.up_proj.weight.grad
    for slot in range(4):
        assert gradient[slot * 64 : slot * 64 + 64, slot * 16 : slot * 16 + 16].abs().min() > 0


def test_dolls_without_rows_take_no_part(tmp_path):
    data = streams([3, 3, 2])
    built, batch = build(tmp_path, data), CausalCollator(0)(data)
    model = built.model.train()
    losses = own_losses(model, batch)
    assert list(losses) == ["L2.2", "L2.3", "L1.1", "L0.0"]
    total = (losses["L2.2"] + losses["L2.3"]) / 4 + losses["L1.1"] / 2 + losses["L0.0"]
    # Three seventh is the mean weight of a doll.
    torch.testing.assert_close(built.compute_loss(model, batch), total / 4 / (3 / 7))
    assert set(built._training_terms.pop(built.accelerator)) == {f"loss_{level}" for level in losses}


def test_evaluation_scores_each_doll_on_its_own_stream(tmp_path):
    # Batches with and without some of the streams.
    data = streams([0, 0, 0, 1, 2, 3, 3, 1])
    built = build(tmp_path, data, per_device_eval_batch_size=3)
    metrics = built.evaluate()
    with torch.no_grad():
        losses = own_losses(built.model, CausalCollator(0)(data))
    for level in LEVELS:
        assert metrics[f"eval_loss_{level}"] == pytest.approx(losses[level].item(), abs=1e-5)


def test_dolls_learn_their_streams(tmp_path):
    data = []
    for stream in range(4):
        # Each stream counts up by another step.
        step = stream + 1
        data += [
            {"input_ids": [(3 + n + step * m) % 97 + 3 for m in range(12)], "stream": stream} for n in range(0, 97, 8)
        ]
    options = {"per_device_train_batch_size": 16, "max_steps": 150, "learning_rate": 5e-3}
    built = build(tmp_path, data, **options)
    built.train()
    model = built.model.eval()
    ids = torch.tensor([row["input_ids"] for row in data])
    names, _ = model.route(ids)
    right = [name == f"L2.{row['stream']}" for name, row in zip(names, data, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_bad_input_is_refused(tmp_path):
    data = streams([0, 1, 2, 3])
    for options, message in (
        ({"level_sampling": "random"}, "a FractalFormer is trained with level_sampling 'all'"),
        ({"kd_weight": 0.5}, "a FractalFormer is trained with kd_weight 0.0"),
        ({"split_batch": True}, "a FractalFormer splits its batches by streams"),
    ):
        with pytest.raises(ValueError, match=message):
            build(tmp_path, data, **options)
    built = build(tmp_path, data)
    with pytest.raises(ValueError, match="rows have no column 'stream'"):
        built.compute_loss(built.model.train(), CausalCollator(0)(rows(2)))
    for number in (4, -1):
        with pytest.raises(ValueError, match=f"streams are numbered from 0 to 3, .* with the number {number}"):
            built.compute_loss(built.model.train(), CausalCollator(0)(streams([0, number])))
