"""What docs/scale.md says about several processes, in two of them."""

import json

from hf_matryoshka.data.vectors import load_vectors
from tests.documentation.blocks import ROOT, read_blocks


# Both models see the same texts on every process, so that their gradients are those of one process.
SAME = """
import copy

whole = MatryoshkaGPTForCausalLM(model.config)
whole.load_state_dict({name: part.full_tensor() for name, part in model.state_dict().items()})
assert all(isinstance(part, torch.distributed.tensor.DTensor) for part in model.parameters())
ids = torch.randint(1, 64, (2, 12), generator=torch.Generator().manual_seed(0))
for one in (model, whole):
    one.optimizer = torch.optim.AdamW(one.parameters(), lr=1e-2)
for step in range(3):
    for level in model.config.levels:
        losses = [one(input_ids=ids, labels=ids, level=level).loss for one in (model, whole)]
        assert torch.allclose(*losses, rtol=1e-5), (step, level, losses)
        for loss in losses:
            loss.backward()
    for one in (model, whole):
        one.optimizer.step()
        one.optimizer.zero_grad()
"""

# What the page has made before it trains.
ROWS = """
from datasets import Dataset
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/model")
rows = Dataset.from_dict({"input_ids": [[4 + (row + place) % 8 for place in range(8)] for row in range(64)]})
"""
TRAINED = """
assert trainer.args.world_size == 2 and trainer.state.global_step == 2
sums = [None, None]
torch.distributed.all_gather_object(sums, [float(part.double().sum()) for part in trainer.model.parameters()])
assert sums[0] == sums[1]
if trainer.is_world_process_zero():
    saved = MatryoshkaGPTForCausalLM.from_pretrained("runs/gpt/model")
    assert [float(part.double().sum()) for part in saved.parameters()] == sums[0]
"""


def test_two_processes_share_texts_a_model_and_a_training(run_in_two_processes, tiny_sentence_transformer, tmp_path):
    page = read_blocks(ROOT / "docs" / "scale.md")
    blocks = [block.text for block in page if "test_scale_page" in block.mark]
    assert len(blocks) == 2
    (training,) = (block.text for block in page if "trainer.train()" in block.text)
    assert "max_steps=1000" in training
    training = training.replace("max_steps=1000", "max_steps=2, use_cpu=True, report_to='none'")
    texts = [f"the cat and dog number {row}" for row in range(7)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    start = f"import os\nos.chdir({str(tmp_path)!r})\n"
    script = "".join([start, *blocks, SAME, ROWS, training, TRAINED]).replace(
        "path/to/model", str(tiny_sentence_transformer)
    )
    run_in_two_processes(script)
    assert [len(load_vectors(tmp_path / f"part{rank}.arrow")) for rank in (0, 1)] == [4, 3]
