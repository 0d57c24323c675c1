"""Training a tiny Matryoshka GPT from files: windows, documents, a checkpoint."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.token_windows import ConsecutiveWindows
from hf_matryoshka.data.train_tokenizer import train_tokenizer
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.evaluation.next_token import next_token_losses
from hf_matryoshka.recipes import train_gpt as module
from hf_matryoshka.recipes.fractal_recipe import FractalRecipe
from hf_matryoshka.recipes.gpt_recipe import GPTRecipe
from hf_matryoshka.recipes.train_gpt import train_gpt


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "doll_sizes": [16, 32]}
TRAINING = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "use_cpu": True}
TRAINING |= {"disable_tqdm": True}
LINES = [
    f"the {one} of the {two} is {three}" for one in ("cat", "dog") for two in ("river", "city") for three in "abc"
]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES * 30))
    return str(path)


@pytest.fixture
def windows(text):
    return GPTRecipe(
        texts=[text], rows="windows", tokenizer="characters", max_length=16, validation_fraction=0.1, **SHAPE
    )


def test_windows_of_characters_at_every_size(windows, text, tmp_path):
    trained = train_gpt(windows, tmp_path / "run", TRAINING)
    whole = open(text).read()
    assert len(trained.tokenizer) == len(set(whole)) + 2 == trained.model.config.vocab_size
    report, levels = trained.report, ["d16", "d32"]
    for level in levels:
        assert report["after"][level] < 0.5 * report["before"][level]
        assert report["before"][level] == pytest.approx(math.log(len(trained.tokenizer)), abs=0.1)
    assert json.loads((tmp_path / "run" / "training.json").read_text()) == report
    # The held-out part is the end of the file, each of its characters predicted once.
    held_out = trained.tokenizer(whole[int(0.9 * len(whole)) :])["input_ids"]
    loader = DataLoader(ConsecutiveWindows(held_out, 16), 4, collate_fn=CausalCollator(0))
    losses, counts = next_token_losses(trained.model, loader, "d16")
    assert counts.sum() == len(held_out) - 1
    assert (losses * counts).sum() / counts.sum() == pytest.approx(report["after"]["d16"], abs=1e-4)
    curve = Curve.from_json(tmp_path / "run" / "curve.json")
    assert curve.levels == levels and curve.metric == "negative_nll"
    assert -curve["d16"].quality == pytest.approx(report["after"]["d16"], abs=1e-4)
    assert curve["d16"].cost["macs"] < curve["d32"].cost["macs"]
    # The same call again takes what is there.
    again = train_gpt(windows, tmp_path / "run", TRAINING)
    assert again.report == report and not again.model.training
    ids = torch.tensor([held_out[:12]])
    assert torch.equal(again.model(ids).logits, trained.model(ids).logits)
    with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
        train_gpt(windows, tmp_path / "run", TRAINING | {"kd_weight": 0.5})


def test_an_interrupted_run_goes_on_and_ends_the_same(windows, tmp_path, monkeypatch):
    settings = TRAINING | {"max_steps": 8, "save_steps": 4, "level_sampling": "random", "kd_weight": 0.5}
    settings |= {"levels_per_step": 1}
    whole = train_gpt(windows, tmp_path / "whole", settings)
    step = module.MatryoshkaGPTTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.MatryoshkaGPTTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_gpt(windows, tmp_path / "cut", settings)
    assert not (tmp_path / "cut" / "model").exists()
    resumed = train_gpt(windows, tmp_path / "cut", settings)
    assert (whole.report["resumed_from_step"], resumed.report["resumed_from_step"]) == (0, 4)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_documents_end_and_do_not_see_each_other(text, tmp_path):
    (tmp_path / "other.txt").write_text("\n".join(f"{line} {number}" for number in range(40) for line in LINES))
    recipe = GPTRecipe(texts=[str(tmp_path / "other.txt")], vocab_size=300, max_length=32, **SHAPE)
    trained = train_gpt(recipe, tmp_path / "run", TRAINING)
    assert trained.report["after"]["d16"] < 0.8 * trained.report["before"]["d16"]
    assert trained.tokenizer.eos_token == "<|endoftext|>" and len(trained.tokenizer) <= 300
    assert trained.tokenizer("the cat")["input_ids"][-1] != trained.tokenizer.eos_token_id
    # After training it ends what it writes.
    ids = trained.tokenizer(LINES[0] + " 7", return_tensors="pt")["input_ids"]
    scores = trained.model(ids).logits[0, -1].softmax(-1)
    assert scores[trained.tokenizer.eos_token_id] > 0.1


@pytest.fixture
def llama(tmp_path):
    folder = tmp_path / "llama"
    tokenizer = train_tokenizer(LINES, 280, causal=True, progress=False)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 8
    config.max_position_embeddings, config.eos_token_id = 64, tokenizer.eos_token_id
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder, model.eval()


def test_a_llama_is_nested_and_taught_by_itself(llama, text, tmp_path):
    folder, model = llama
    recipe = GPTRecipe(
        texts=[text], rows="windows", base_model_path=str(folder), doll_sizes=[16, 32], max_length=16, seed=1
    )
    settings = TRAINING | {"kd_weight": 1.0, "max_steps": 30}
    trained = train_gpt(replace(recipe, distil_from_base=True), tmp_path / "run", settings)
    ids = trained.tokenizer(LINES[1], return_tensors="pt")["input_ids"]
    # At its full size it begins as the Llama.
    rate = {"learning_rate": 0.0, "max_steps": 1, "weight_decay": 0.0}
    start = train_gpt(recipe, tmp_path / "start", TRAINING | rate)
    with torch.no_grad():
        torch.testing.assert_close(start.model(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
        distances = [
            torch.nn.functional.kl_div(
                one.model(ids, level="d16").logits.log_softmax(-1),
                model(ids).logits.log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
            for one in (start, trained)
        ]
    assert distances[1] < distances[0]
    # What was trained can be gone on with.
    more = GPTRecipe(texts=[text], rows="windows", base_model_path=str(tmp_path / "run" / "model"), max_length=16)
    gone_on = train_gpt(more, tmp_path / "more", TRAINING | rate)
    assert gone_on.model.config.levels == ("d16", "d32")
    torch.testing.assert_close(gone_on.model(ids).logits, trained.model(ids).logits, rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "more" / "model").vocab_size == trained.tokenizer.vocab_size


def test_prefixes_learn_groups_of_tokens(windows, tmp_path):
    path = tmp_path / "groups.yaml"
    path.write_text('4:\n  vowels: aeio\n  others: "hrtvyd "\n')
    imposed = train_gpt(replace(windows, hierarchy=str(path)), tmp_path / "imposed", TRAINING | {"max_steps": 10})
    assert imposed.report["after"]["d16"] < imposed.report["before"]["d16"]
    clusters = {"emergent_widths": [4, 8], "emergent_clusters": [2, 4]}
    settings = TRAINING | {"max_steps": 10, "hierarchy_refresh_steps": 4, "hierarchy_weight": 0.5}
    emerged = train_gpt(replace(windows, **clusters), tmp_path / "emerged", settings)
    assert emerged.report["after"]["d16"] < emerged.report["before"]["d16"]
    recipe = replace(windows, **clusters)
    cluster = module.clustering(recipe, emerged.tokenizer, module.gpt_arguments(tmp_path, recipe, {}))
    groups = cluster(emerged.model.get_input_embeddings().weight.detach())
    special = emerged.tokenizer.all_special_ids
    assert len(special) == 2 and groups[4].unique().tolist() == [0, 1, 2] and (groups[8] == 4).sum() == 2
    assert groups[4][special].tolist() == [2, 2] and groups[8][special].tolist() == [4, 4]
    one, two = (trained.model.get_input_embeddings().weight for trained in (imposed, emerged))
    assert not torch.equal(one, two)


def test_groups_of_words_are_cut_from_wordnet(text, tmp_path, monkeypatch):
    synsets = {"1n": ("entity", []), "2n": ("animal", ["1n"]), "3n": ("place", ["1n"])}
    synsets |= {"4n": ("cat", ["2n"]), "5n": ("dog", ["2n"]), "6n": ("river", ["3n"])}
    with open(tmp_path / "synsets.jsonl", "w") as file:
        for key, (word, above) in synsets.items():
            file.write(json.dumps({"id": key, "lemmas": [word], "hypernyms": above}) + "\n")
    (tmp_path / "groups.yaml").write_text(f"wordnet: {tmp_path / 'synsets.jsonl'}\ndepths: {{4: 1, 8: 2}}\n")
    given = []

    class Trainer(module.HierarchyTrainer):
        def set_groups(self, groups):
            given.append(groups)
            super().set_groups(groups)

    monkeypatch.setattr(module, "HierarchyTrainer", Trainer)
    recipe = GPTRecipe(**SHAPE, texts=[text], hierarchy=str(tmp_path / "groups.yaml"), max_length=16, vocab_size=290)
    trained = train_gpt(recipe, tmp_path / "run", TRAINING | {"max_steps": 4})
    cat, dog, river, the = trained.tokenizer.convert_tokens_to_ids(["Ġcat", "Ġdog", "Ġriver", "Ġthe"])
    coarse, fine = (given[0][width].tolist() for width in (4, 8))
    assert coarse[cat] == coarse[dog] != coarse[river] != coarse[the] and fine[cat] != fine[dog]
    assert len(set(coarse)) == 3 and len(set(fine)) == 4


@pytest.fixture
def fractal(tmp_path):
    texts = []
    for word in ("cats", "dogs"):
        texts.append(str(tmp_path / f"{word}.txt"))
        (tmp_path / f"{word}.txt").write_text(f"{word} and {word} and so on\n" * 120)
    shape = {name: SHAPE[name] for name in SHAPE if name != "doll_sizes"}
    return FractalRecipe(texts=texts, tokenizer="characters", max_length=16, depth=2, validation_fraction=0.1, **shape)


def test_dolls_of_a_fractal_learn_their_streams(fractal, tmp_path):
    trained = train_gpt(fractal, tmp_path / "run", TRAINING)
    assert trained.model.config.levels == ("L1.0", "L1.1", "L0.0") == tuple(trained.report["after"])
    for level, after in trained.report["after"].items():
        assert after < 0.4 * trained.report["before"][level]
    curve = Curve.from_json(tmp_path / "run" / "curve.json")
    assert -curve["L1.1"].quality == pytest.approx(trained.report["after"]["L1.1"], abs=1e-4)
    ids = trained.tokenizer(["cats and cats", "dogs and dogs"], return_tensors="pt")["input_ids"]
    assert trained.model.route(ids)[0] == ["L1.0", "L1.1"]
    again = train_gpt(fractal, tmp_path / "run", TRAINING)
    assert type(again.model) is type(trained.model)
    for options, match in (
        ({"rows": "documents"}, "rows of a FractalFormer are 'windows'"),
        ({"texts": fractal.texts[:1]}, "there are 1 files for 2 smallest dolls"),
        ({"children": 1}, "children must be at least 2"),
        ({"depth": 10**30}, "depth from 1 to 32, but are 2 and 1000"),
        ({"doll_sizes": [16, 32]}, "doll_sizes has no meaning for a FractalFormer"),
        ({"num_attention_heads": 1}, "num_attention_heads 1 cannot be divided among the 2 smallest dolls"),
    ):
        with pytest.raises(ValueError, match=match):
            train_gpt(replace(fractal, **options), tmp_path / "other", TRAINING)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"emergent_widths": [4], "emergent_clusters": [2, 4]}, "emergent_widths has 1 numbers, but emergent_cl"),
        ({"hierarchy": "a", "emergent_widths": [4], "emergent_clusters": [2]}, "leave one out"),
        ({"rows": "lines"}, "rows 'lines' does not exist; choose one of documents, windows"),
        ({"texts": None}, "give exactly one of texts, dataset_name and pretokenized_path"),
        ({"balance": True}, "rows 'windows' reads files of text, so balance has no meaning"),
        ({"doll_sizes": [12, 32]}, "doll size 12 of 32 does not fit heads of 16 channels"),
        ({"doll_sizes": [32, 16]}, "the last of doll_sizes must be hidden_size 32|doll_sizes must increase"),
        ({"hidden_size": 0}, "hidden_size must be above 0, but is 0"),
        ({"sort": True}, "sort is about a checkpoint, so it needs base_model_path"),
        ({"base_model_path": "none"}, "hidden_size is read from base_model_path; leave it out"),
        ({"max_length": 5000}, "a part of the text has .* tokens, too few for a window of 5000"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, match, windows, tmp_path):
    with pytest.raises(ValueError, match=match):
        train_gpt(replace(windows, **options), tmp_path / "run", TRAINING)
    assert not (tmp_path / "run" / "model").exists()


def test_a_bad_checkpoint_or_argument_is_refused(windows, llama, text, tmp_path):
    folder, _ = llama
    with pytest.raises(ValueError, match="distil_from_base needs kd_weight above 0"):
        recipe = GPTRecipe(texts=[text], base_model_path=str(folder), doll_sizes=[16, 32], distil_from_base=True)
        train_gpt(recipe, tmp_path / "run", TRAINING)
    with pytest.raises(ValueError, match="give doll_sizes, the widths of the levels: .* has 32 channels"):
        train_gpt(GPTRecipe(texts=[text], base_model_path=str(folder), max_length=16), tmp_path / "run", TRAINING)
    with pytest.raises(ValueError, match="max_length 512 is more than the 64 positions"):
        train_gpt(GPTRecipe(texts=[text], base_model_path=str(folder), doll_sizes=[32]), tmp_path / "run", TRAINING)
    base = {"texts": [text], "base_model_path": str(folder), "max_length": 16}
    with pytest.raises(ValueError, match="doll size 12 of 32 does not fit heads of 8 channels"):
        train_gpt(GPTRecipe(**base, doll_sizes=[12, 32]), tmp_path / "run", TRAINING)
    train_tokenizer(LINES, 290, causal=True, progress=False).save_pretrained(tmp_path / "larger")
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, but the model has \d+ embeddings"):
        train_gpt(GPTRecipe(**base, doll_sizes=[32], tokenizer=str(tmp_path / "larger")), tmp_path / "run", TRAINING)
    with pytest.raises(ValueError, match="hierarchy_weight needs hierarchy"):
        train_gpt(windows, tmp_path / "run", TRAINING | {"hierarchy_weight": 1.0})
    with pytest.raises(FileNotFoundError, match="taxonomy none.yaml does not exist"):
        train_gpt(replace(windows, hierarchy="none.yaml"), tmp_path / "run", TRAINING)
    with pytest.raises(ValueError, match="level_weights must hold 2 numbers"):
        train_gpt(windows, tmp_path / "run", TRAINING | {"level_weights": [1.0]})
    with pytest.raises(OSError, match="no model folder at .*none"):
        recipe = GPTRecipe(texts=[text], base_model_path=str(tmp_path / "none"), doll_sizes=[16, 32])
        train_gpt(recipe, tmp_path / "run", TRAINING)
    assert not (tmp_path / "run").exists()
