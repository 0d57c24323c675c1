import json
from dataclasses import dataclass

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from hf_matryoshka.modeling.levels import LevelsMixin
from hf_matryoshka.modeling.nested_layers import NestedLinear
from hf_matryoshka.trainers.matryoshka_arguments import MatryoshkaTrainingArguments
from hf_matryoshka.trainers.matryoshka_trainer import MatryoshkaTrainer


class ToyConfig(LevelsMixin, PreTrainedConfig):
    model_type = "nested_toy"

    @property
    def levels(self):
        return ("d2", "d4", "d8")


@dataclass
class ToyOutput(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class ToyModel(PreTrainedModel):
    """Linear regression from the first 2, 4 or 8 features."""

    config: ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = NestedLinear(8, 1)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, NestedLinear):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)

    def forward(self, x, labels=None, level=None, length=None):
        width = (2, 4, 8)[self.config.level_index(level)]
        logits = self.layer(x[:, :width])
        loss = None if labels is None else (logits - labels).square().mean()
        return ToyOutput(loss=loss, logits=logits)


def data(rows=32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 8, generator=generator)
    y = x @ torch.arange(1.0, 9.0)[:, None] / 8
    return Dataset.from_dict({"x": x.tolist(), "labels": y.tolist()}).with_format("torch")


def train(tmp_path, trainer_class=MatryoshkaTrainer, resume=None, rows=None, **arguments):
    settings = {
        "max_steps": 8,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    trainer = trainer_class(
        model=ToyModel(ToyConfig()),
        args=MatryoshkaTrainingArguments(output_dir=str(tmp_path), **settings),
        train_dataset=data() if rows is None else rows,
        eval_dataset=data(),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def trajectory(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_an_order_by_length_has_the_seed_and_the_epoch(tmp_path, strategy):
    rows = data().add_column("length", [1 + row % 5 for row in range(32)])
    arguments = {"train_sampling_strategy": strategy, "max_steps": 6, "data_seed": 7}
    trainer = train(tmp_path, rows=rows, **arguments)
    assert (trainer._train_sampler.seed, trainer._train_sampler.epoch) == (7, 1)
    orders = [list(trainer._train_sampler) for _ in range(2)]
    trainer._train_sampler.set_epoch(0)
    assert orders[0] == orders[1] != list(trainer._train_sampler)


def test_every_level_is_logged_and_evaluated_under_its_name(tmp_path):
    trainer = train(tmp_path)
    first = trainer.state.log_history[0]
    levels = [first[f"loss_{name}"] for name in ("d2", "d4", "d8")]
    assert first["loss"] == pytest.approx(sum(levels) / 3, abs=1e-5)
    metrics = trainer.evaluate()
    evaluated = [metrics[f"eval_loss_{name}"] for name in ("d2", "d4", "d8")]
    assert metrics["eval_loss"] == pytest.approx(sum(evaluated) / 3, abs=1e-5)
    assert evaluated[0] > evaluated[1] > evaluated[2]


def test_weights_weigh_the_levels(tmp_path):
    first = train(tmp_path, level_weights=[1.0, 0.0, 3.0]).state.log_history[0]
    assert first["loss"] == pytest.approx((first["loss_d2"] + 3 * first["loss_d8"]) / 4, abs=1e-5)


def test_a_weight_counts_where_a_level_is_drawn_alone(tmp_path):
    settings = {"level_sampling": "random", "levels_per_step": 1, "level_weights": [1.0, 2.0, 6.0]}
    for row in train(tmp_path, **settings).state.log_history[:8]:
        (name,) = (key for key in row if key.startswith("loss_"))
        weight = {"loss_d2": 1 / 3, "loss_d4": 2 / 3, "loss_d8": 2}[name]
        assert row["loss"] == pytest.approx(weight * row[name], rel=1e-3)


def test_after_a_training_in_bfloat16_the_model_computes_in_float32(tmp_path):
    trained = train(tmp_path, bf16=True).model
    fresh = ToyModel(ToyConfig())
    fresh.load_state_dict(trained.state_dict())
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trained(x).logits, fresh(x).logits, rtol=0, atol=0)


def test_only_the_drawn_levels_run_in_training_but_all_in_evaluation(tmp_path):
    trainer = train(tmp_path, level_sampling="random", levels_per_step=1)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert all(sum(key.startswith("loss_") for key in row) == 1 for row in rows)
    assert {"eval_loss_d2", "eval_loss_d4", "eval_loss_d8"} <= set(trainer.evaluate())


def test_accumulation_gives_the_trajectory_of_the_large_batch(tmp_path):
    large = train(tmp_path, per_device_train_batch_size=8)
    small = train(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, level_sampling="all")
    assert trajectory(small) == pytest.approx(trajectory(large), rel=1e-5)


def test_resume_equals_an_uninterrupted_run(tmp_path):
    whole = train(tmp_path / "whole", level_sampling="random", save_strategy="steps", save_steps=4)
    resumed = train(tmp_path / "resumed", level_sampling="random", resume=str(tmp_path / "whole" / "checkpoint-4"))
    assert trajectory(resumed) == pytest.approx(trajectory(whole), rel=1e-6)
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


def test_nothing_is_left_to_do_after_the_checkpoint_of_the_last_step(tmp_path):
    # Within an epoch, and with a rate that further steps would move the weights by.
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    whole = train(tmp_path / "whole", **options)
    resumed = train(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-6"), **options)
    assert resumed.state.global_step == 6
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


class TiedTrainer(MatryoshkaTrainer):
    def prepare_step(self, model, inputs):
        return 2.0

    def tie_losses(self, model, inputs, outputs, shared=None):
        return {"tie": shared * (outputs[0].logits - outputs[2].logits).abs().mean() + 1}


def test_tie_terms_are_added_and_logged(tmp_path):
    first = train(tmp_path, TiedTrainer).state.log_history[0]
    levels = [first[f"loss_{name}"] for name in ("d2", "d4", "d8")]
    assert first["tie"] == pytest.approx(1.0)
    assert first["loss"] == pytest.approx(sum(levels) / 3 + first["tie"], abs=1e-5)


TWO_PROCESSES = """
import importlib.util, json, os, sys

spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
sys.modules["toy"] = toy
spec.loader.exec_module(toy)
trainer = toy.train(sys.argv[2], per_device_train_batch_size=4, level_sampling="random")
if trainer.args.process_index == 0:
    result = {"world": trainer.args.world_size, "history": trainer.state.log_history}
    with open(sys.argv[3], "w") as file:
        json.dump(result, file)
"""


def test_two_processes_give_the_trajectory_of_one(run_in_two_processes, tmp_path):
    output = tmp_path / "result.json"
    run_in_two_processes(TWO_PROCESSES, __file__, tmp_path / "out", output)
    two = json.loads(output.read_text())
    assert two["world"] == 2
    one = train(tmp_path / "one", per_device_train_batch_size=8, level_sampling="random")
    for ours, theirs in zip(one.state.log_history[:-1], two["history"][:-1], strict=True):
        assert set(ours) == set(theirs)
        assert theirs == pytest.approx(ours, rel=1e-4)
