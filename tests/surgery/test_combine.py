"""Several Llamas side by side in one decoder, glue between them, and the glue folded away."""

import pytest
import torch
from transformers import BertConfig, BertModel

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.modeling import MatryoshkaGPTForCausalLM
from hf_matryoshka.surgery.combine import combine, fold_glue
from hf_matryoshka.surgery.nest_decoder import nest_decoder
from hf_matryoshka.trainers.glue_trainer import GlueTrainer
from hf_matryoshka.trainers.gpt_arguments import MatryoshkaGPTTrainingArguments

from .test_nest_decoder import batches, llama


def parts(count=3, **options):
    found = []
    for number in range(count):
        model = llama(**options)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(number)
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found.append(model)
    return found


IDS = batches()[0]["input_ids"]


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}])
@torch.no_grad()
def test_the_logits_are_the_weighted_sum_of_those_of_the_parts(options):
    models = parts(**options)
    logits = torch.stack([model(IDS).logits for model in models])
    for glue in (True, False):
        whole = combine(models, glue=glue)
        assert whole.config.hidden_size == 96 and whole.config.num_key_value_heads == 6 and whole.config.glue is glue
        torch.testing.assert_close(whole(IDS).logits, logits.mean(0), rtol=0, atol=1e-5)
    weighted = combine(models, weights=[0.5, -1.0, 2.0])(IDS).logits
    torch.testing.assert_close(
        weighted, (torch.tensor([0.5, -1, 2])[:, None, None, None] * logits).sum(0), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(combine(models, weights=[0, 1, 0])(IDS).logits, logits[1], rtol=0, atol=1e-5)
    # One norm over all channels would not do.
    whole.config.norm_groups = 1
    mixed = MatryoshkaGPTForCausalLM(whole.config).eval()
    mixed.load_state_dict(whole.state_dict())
    assert (mixed(IDS).logits - logits.mean(0)).abs().max() > 0.1


@torch.no_grad()
def test_nested_parts_saving_and_generation(tmp_path):
    models = parts(2)
    whole = combine([nest_decoder(models[0], [16, 32]), models[1]])
    expected = (models[0](IDS).logits + models[1](IDS).logits) / 2
    torch.testing.assert_close(whole(IDS).logits, expected, rtol=0, atol=1e-5)
    whole.save_pretrained(tmp_path)
    loaded = MatryoshkaGPTForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(IDS).logits, expected, rtol=0, atol=1e-5)
    found = loaded.generate(IDS[1:], max_new_tokens=8)
    assert torch.equal(found, whole.generate(IDS[1:], max_new_tokens=8, use_cache=False))


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}])
@torch.no_grad()
def test_glue_folds_away_exactly(options):
    whole = combine(parts(**options))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in whole.named_parameters():
            if "glue" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    folded = fold_glue(whole)
    assert not any("glue" in name for name in folded.state_dict()) and not folded.config.tie_word_embeddings
    torch.testing.assert_close(folded(IDS).logits, whole(IDS).logits, rtol=0, atol=1e-4)
    assert (folded(IDS).logits - combine(parts(**options))(IDS).logits).abs().max() > 0.1
    assert all(torch.equal(before[name], tensor) for name, tensor in whole.state_dict().items())


def test_only_the_glue_is_trained(tmp_path):
    whole = combine(parts())
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    args = MatryoshkaGPTTrainingArguments(
        str(tmp_path), max_steps=3, learning_rate=0.01, use_cpu=True, report_to="none", save_strategy="no"
    )
    rows = [{"input_ids": row.tolist()} for row in IDS]
    GlueTrainer(model=whole, args=args, train_dataset=rows, data_collator=CausalCollator(0)).train()
    changed = {name for name, tensor in whole.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {name for name in before if "glue" in name} and len(changed) == 2 * 4 + 1
    with pytest.raises(ValueError, match="the model has no glue to train"):
        GlueTrainer(model=fold_glue(whole), args=args, train_dataset=rows)


def test_bad_input_is_refused():
    models = parts(2)
    with pytest.raises(ValueError, match="combine takes two models or more, but got 1"):
        combine(models[:1])
    bert = BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="model 1 is a BertModel, which is not Llama-shaped"):
        combine([models[0], bert])
    with pytest.raises(ValueError, match="model 1 has intermediate_size 40, but model 0 has 48; only models of one"):
        combine([models[0], llama(intermediate_size=40)])
    with pytest.raises(ValueError, match="there are 1 weights for 2 models"):
        combine(models, weights=[1.0])
    tokenizers = [character_tokenizer([text]) for text in ("abc", "abd")]
    with pytest.raises(ValueError, match="the tokenizers of model 0 and model 1 differ, for example in 'c'"):
        combine(models, tokenizers=tokenizers)
    combine(models, tokenizers=tokenizers[:1] * 2)
    with pytest.raises(ValueError, match="there are 1 tokenizers for 2 models"):
        combine(models, tokenizers=tokenizers[:1])
    with pytest.raises(ValueError, match="the model has no glue to fold"):
        fold_glue(combine(models, glue=False))
    nested = MatryoshkaGPTForCausalLM(
        type(combine(models).config)(
            vocab_size=60, hidden_size=32, num_attention_heads=4, glue=True, num_hidden_layers=1
        )
    )
    with pytest.raises(ValueError, match="glue can be folded in a model of one level, but there are d8, d16, d32"):
        fold_glue(nested)
