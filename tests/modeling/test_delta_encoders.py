"""What BERT and ModernBERT promise at every budget."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig

import hf_matryoshka
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.modeling.level_shards import leading_part
from hf_matryoshka.trainers.nested_lora import get_nested_lora_model

from .delta_models import BUDGETS, EXACT, HEADS, STOCK, family, inputs, make, outputs


MASKED = ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"]


@pytest.mark.parametrize("name", HEADS)
def test_the_full_budget_is_the_stock_model_with_its_weights(name, tmp_path):
    model_class = getattr(hf_matryoshka, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = make(name, "stock").to_stock().config
        stock = STOCK[name](config).eval()
    stock.save_pretrained(tmp_path)
    model, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.state_dict().keys() == stock.state_dict().keys()
    for length in (3, 12, 30):
        assert (outputs(model, length=length) - outputs(stock, length=length)).abs().max() <= 1e-6
    # Smaller budgets are others.
    assert (outputs(model) - outputs(model, 0)).abs().max() > 1e-2


@pytest.mark.parametrize("budgets", BUDGETS)
@pytest.mark.parametrize("name", HEADS)
def test_every_budget_is_a_stock_model(name, budgets):
    model = make(name, budgets)
    for level in model.config.levels:
        stock = model.to_stock(level, padded=budgets not in EXACT)
        assert type(stock) is STOCK[name] and not hasattr(stock.config, "budgets")
        assert (outputs(stock) - outputs(model, level)).abs().max() <= 1e-5
        sizes = model.config.level_sizes(level)
        assert stock.config.intermediate_size == max(sizes.intermediate)
        assert stock.config.hidden_size == sizes.hidden
        assert stock.config.num_hidden_layers == len(sizes.intermediate)
        assert stock.config.num_attention_heads == sizes.hidden // sizes.head_dim


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MASKED)
def test_a_stock_model_keeps_dtype_mode_ties_and_attention(name, dtype):
    model = make(name, "joint", attn_implementation="eager").to(dtype).train()
    stock = model.to_stock(0)
    assert stock.training and {parameter.dtype for parameter in stock.parameters()} == {dtype}
    assert stock.config._attn_implementation == "eager"
    assert stock.get_output_embeddings().weight is stock.get_input_embeddings().weight
    assert {tensor.dtype for tensor in stock.buffers() if tensor.is_floating_point()} <= {torch.float32}
    torch.testing.assert_close(outputs(stock.eval()), outputs(model.eval(), 0), atol=0.06, rtol=0)


@pytest.mark.parametrize("name", ["DeltaBertModel", "DeltaModernBertModel"])
def test_why_a_budget_is_not_stock_and_which_form_is(name):
    with pytest.raises(
        ValueError, match="w0.25-h1-d2 has 1 heads of width 8, but a .* of hidden size 32 has 4 of them"
    ):
        make(name, "heads").to_stock(0)
    with pytest.raises(ValueError, match="padded with zeros it can be stock.* residual='joint'"):
        make(name, "heads").to_stock(1)
    with pytest.raises(ValueError, match="m0.5-h3-d4 have the feed-forward widths 24, 12, 24, 36, but those of"):
        make(name, [[[0.5, 0.25, 0.5, 0.75], 3, 4], [1.0, 4, 5]], residual="joint").to_stock(0)
    with pytest.raises(ValueError, match="1 heads of width 12, which no number of heads of .* can hold; only its own"):
        make(name, [[1.0, 1, 5], [1.0, 4, 5]], head_dim=12).to_stock(0, padded=True)


@pytest.mark.parametrize("budgets", ["heads", "mixed", "joint"])
@pytest.mark.parametrize("name", HEADS)
def test_attention_implementations_agree_at_every_budget(name, budgets):
    eager, sdpa = (make(name, budgets, attn_implementation=kind) for kind in ("eager", "sdpa"))
    for level in eager.config.levels:
        torch.testing.assert_close(outputs(eager, level), outputs(sdpa, level), atol=2e-5, rtol=0)
    sdpa.set_attn_implementation("eager")
    assert torch.equal(outputs(sdpa, 0), outputs(eager, 0))


@pytest.mark.parametrize("budgets", ["heads", "joint"])
@pytest.mark.parametrize("name", MASKED)
def test_gradients_are_those_of_the_leading_slice_with_and_without_checkpointing(name, budgets):
    model = make(name, budgets)
    shapes, blocks, tied = model.level_shapes(0), model.row_blocks(), model.all_tied_weights_keys
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train().zero_grad()
        # Without dropout the two runs are equal.
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        labels = torch.randint(3, 99, (2, 12), generator=torch.Generator().manual_seed(2))
        loss = model(**inputs(), labels=labels, level=0).loss
        loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for key, gradient in found[0].items():
        assert (gradient is None) == (key not in shapes), key
        if gradient is None:
            continue
        torch.testing.assert_close(found[1][key], gradient, atol=1e-6, rtol=1e-5)
        count = blocks.get(key, 1)
        outside = gradient.clone().unflatten(0, (count, -1))
        inside = outside[(slice(None), slice(shapes[key][0] // count), *map(slice, shapes[key][1:]))]
        assert inside.abs().sum() > 0 or key in tied, key
        inside.zero_()
        assert not outside.any(), key


@pytest.mark.parametrize("budgets", ["stock", "joint", "ordered"])
@pytest.mark.parametrize("name", MASKED)
def test_gradients_are_those_of_the_stock_model_of_the_budget(name, budgets):
    model, labels = make(name, budgets), inputs()["input_ids"]
    for level in model.config.levels:
        stock, blocks = model.to_stock(level), model.row_blocks()
        model.zero_grad()
        for each, kwargs in ((model, {"level": level}), (stock, {})):
            each(**inputs(), labels=labels, **kwargs).loss.backward()
        found = {key: parameter.grad for key, parameter in model.named_parameters()}
        for key, parameter in stock.named_parameters():
            key = model.whole_name(model.config, level, key)
            part = leading_part(found[key], parameter.shape, blocks.get(key, 1))
            torch.testing.assert_close(part, parameter.grad, atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", MASKED)
def test_forwards_of_several_levels_run_in_parallel(name):
    model = make(name)
    expected = {level: outputs(model, level) for level in model.config.levels}
    jobs = list(expected) * 12
    with ThreadPoolExecutor(6) as pool:
        for level, output in zip(jobs, pool.map(lambda level: outputs(model, level), jobs), strict=True):
            assert torch.equal(output, expected[level])


@pytest.mark.parametrize("name", MASKED)
def test_the_loss_is_divided_by_the_items_of_the_batch_at_every_level(name):
    model, labels = make(name), inputs()["input_ids"].clone()
    labels[:, ::2] = -100
    count = int((labels != -100).sum())
    for level in model.config.levels:
        mean = model(**inputs(), labels=labels, level=level).loss
        logits = model(**inputs(), level=level).logits
        torch.testing.assert_close(mean, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))
        divided = model(**inputs(), labels=labels, level=level, num_items_in_batch=torch.tensor(2 * count)).loss
        torch.testing.assert_close(divided, mean / 2)


@pytest.mark.parametrize("name", HEADS)
def test_hidden_states_attentions_and_embedded_inputs(name):
    model = make(name, "joint", attn_implementation="eager")
    for level in model.config.levels:
        sizes = model.config.level_sizes(level)
        found = model(**inputs(), level=level, output_hidden_states=True, output_attentions=True)
        assert len(found.hidden_states) == len(sizes.intermediate) + 1
        assert {states.shape[-1] for states in found.hidden_states} == {sizes.hidden}
        assert [weights.shape[1] for weights in found.attentions] == [sizes.heads] * len(sizes.intermediate)
        words = model.get_input_embeddings()(inputs()["input_ids"])
        embedded = model(inputs_embeds=words, attention_mask=inputs()["attention_mask"], level=level)[0]
        torch.testing.assert_close(embedded, model(**inputs(), level=level)[0])
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(level=0)


@pytest.mark.parametrize("budgets", ["mixed", "joint"])
@pytest.mark.parametrize("name", HEADS)
def test_some_layers_of_a_level_can_be_run(name, budgets):
    model = make(name, budgets)
    for index, level in enumerate(model.config.levels):
        depth = model.config.budget(level).depth
        with torch.no_grad():
            assert torch.equal(model(**inputs(), level=level, layers=range(depth))[0], outputs_of(model, level))
            some = model(**inputs(), level=level, layers=(1, 0), output_hidden_states=True)
        assert len(some.hidden_states) == 3
        for wrong in (-1, depth):
            with pytest.raises(ValueError, match=f"layers has {wrong}, but the level has the layers 0, 1"):
                model(**inputs(), level=index, layers=[0, wrong])
    # The first layers of the largest level are a smaller one of the same width and heads.
    budget = model.config.budget()
    shallow = make(name, [[list(budget.widths[:2]), 4, 2], model.config.budgets[-1]], residual=model.config.residual)
    shallow.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(**inputs(), layers=(0, 1))[0], outputs_of(shallow, 0))
        # A skipped layer is as one that adds nothing to the residual stream: those after it see what it saw.
        states = model(**inputs(), layers=(0, 2, 3), output_hidden_states=True).hidden_states
        whole = model(**inputs(), layers=(0, 1, 2), output_hidden_states=True).hidden_states
    assert torch.equal(states[1], whole[1]) and not torch.equal(states[2], whole[2])
    # Each has its own width.
    sizes = model.config.level_sizes()
    _, run, _ = model._begin(inputs()["input_ids"], None, None, (0, 2, 3))
    assert run == [(layer, sizes.intermediate[layer]) for layer in (0, 2, 3)]


@pytest.mark.parametrize("budgets", ["ordered", "joint-ordered-mixed"])
@pytest.mark.parametrize("name", HEADS)
def test_a_level_runs_the_layers_of_the_order_from_the_input_on(name, budgets, tmp_path):
    model = make(name, budgets)
    for level, layers in zip(model.config.levels, ((0, 4), (0, 2, 4), range(5)), strict=True):
        with torch.no_grad():
            assert torch.equal(model(**inputs(), level=level)[0], model(**inputs(), level=level, layers=layers)[0])
        small, shapes = model.cut(level), model.level_shapes(level)
        assert (outputs(small) - outputs(model, level)).abs().max() <= 1e-5
        read = {int(number) for key in shapes for number in re.findall(r"\blayers?\.(\d+)\.", key)}
        assert len(small.state_dict()) == len(shapes) and read == set(layers)
    model.save_pretrained(tmp_path, shard_by_level=True)
    model_class = type(model)
    for level in model.config.levels:
        loaded = model_class.from_pretrained(tmp_path, level=level)
        assert torch.equal(outputs(loaded), outputs(model.cut(level)))
    assert torch.equal(outputs(model_class.from_pretrained(tmp_path)), outputs(model))


@pytest.mark.parametrize("name", HEADS)
def test_norms_of_a_budget_are_its_own_and_a_cut_keeps_those_of_its_levels(name):
    # The second budget is not inside the third, so that a cut of that one has two of the first three.
    budgets = [[0.25, 4, 2], [0.5, 4, 3], [0.25, 4, 5], [1.0, 4, 5]]
    model, plain = make(name, budgets, budget_norms=True), make(name, budgets)
    table = {key: value for key, value in model.state_dict().items() if "level_" in key}
    assert all(len(value) == 4 for value in table.values()) and not {
        key for key in plain.state_dict() if "level_" in key
    }
    small = model.cut(2)
    assert small.config.levels == ("w0.25-h4-d2", "w0.25-h4-d5")
    for own, level in ((0, 0), (1, 2)):
        assert (outputs(small, own) - outputs(model, level)).abs().max() <= 1e-5
    before = {level: outputs(model, level) for level in model.config.levels}
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "level_weight", None) is not None:
                module.level_weight[1].add_(0.3)
    for index, level in enumerate(model.config.levels):
        assert torch.equal(outputs(model, level), before[level]) == (index != 1)


@pytest.mark.parametrize("name", HEADS)
def test_new_norms_and_gates_change_nothing(name, tmp_path):
    model = make(name, "stock")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, budget_norms=True, delta_gates=True)
    for level in model.config.levels:
        assert torch.equal(outputs(loaded, level), outputs(model, level))
    fresh = type(model)(loaded.config)
    gates = [value for key, value in fresh.named_parameters() if key.endswith(".gate")]
    assert len(gates) == 2 * 5 and all(value.item() == 1 for value in gates)
    assert not any(value.any() for key, value in fresh.named_parameters() if "level_" in key)


@pytest.mark.parametrize("name", ["DeltaModernBertModel", "DeltaModernBertForMaskedLM", "DeltaBertForMaskedLM"])
def test_with_closed_gates_every_budget_is_the_smallest(name):
    # After a further layer the norm of BERT normalises again, so it is not gated away.
    shape = [[0.25, 2, 5], [0.5, 3, 5], [1.0, 4, 5]] if "DeltaBert" in name else "heads"
    model = make(name, shape, delta_gates=True, layer_order=[0, 4, 2, 1, 3])
    smallest = outputs(model, 0)
    assert all((outputs(model, level) - smallest).abs().max() > 1e-2 for level in model.config.levels[1:])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(".gate"):
                parameter.zero_()
    for level in model.config.levels:
        torch.testing.assert_close(outputs(model, level), smallest, atol=1e-5, rtol=0)
    with pytest.raises(Exception, match="delta_gates multiply what a budget has beyond the smallest one, w0.5-h4-d2"):
        make(name, [[0.5, 4, 2], [0.25, 4, 5], [1.0, 4, 5]], delta_gates=True)


def outputs_of(model, level):
    return model(**inputs(), level=level)[0]


@pytest.mark.parametrize("name", ["DeltaBertModel", "DeltaModernBertModel"])
@pytest.mark.parametrize("budgets", ["mixed", "joint"])
def test_states_inside_are_those_at_the_exit_but_for_the_last_norm(name, budgets):
    model = make(name, budgets)
    with torch.no_grad():
        states = model(**inputs(), output_hidden_states=True).hidden_states[2]
        exit_ = model(**inputs(), layers=(0, 1)).last_hidden_state
    torch.testing.assert_close(model.exit_states(states), exit_)


@pytest.mark.parametrize("budgets", ["heads", "joint"])
@pytest.mark.parametrize("name", MASKED)
def test_sparse_prediction_gives_the_logits_of_the_labelled_positions(name, budgets):
    dense, sparse = make(name, budgets), make(name, budgets, sparse_prediction=True)
    assert not dense.config.sparse_prediction
    labels = inputs()["input_ids"].clone()
    labels[:, ::2] = -100
    for level in dense.config.levels:
        with torch.no_grad():
            expected, found = (model(**inputs(), labels=labels, level=level) for model in (dense, sparse))
        torch.testing.assert_close(found.logits, expected.logits[labels != -100])
        torch.testing.assert_close(found.loss, expected.loss)
        assert torch.equal(outputs(sparse, level), outputs(dense, level))
    assert sparse.cut(0).config.sparse_prediction
    stock = sparse.to_stock(level).config.to_dict()
    # BERT has no such field, ModernBERT does.
    assert stock.get("sparse_prediction") == (None if name == "DeltaBertForMaskedLM" else True)


@pytest.mark.parametrize("kind", ["regression", "single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("name", ["DeltaBertForSequenceClassification", "DeltaModernBertForSequenceClassification"])
def test_classification_losses_are_those_of_the_stock_model(name, kind):
    model = make(name, "joint", problem_type=kind)
    labels = torch.tensor([2, 0]) if kind.startswith("single") else torch.rand(2, 3).round()
    for level in model.config.levels:
        expected = model.to_stock(level)(**inputs(), labels=labels).loss
        torch.testing.assert_close(model(**inputs(), labels=labels, level=level).loss, expected)


@pytest.mark.parametrize("name", HEADS)
def test_cost_counts_what_runs(name):
    """The multiplications, counted by torch in the stock model of the budget, without what runs once a text."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = make(name, "joint", attn_implementation="eager", classifier_pooling="mean"), 12
    model.config.local_attention = 1000
    ids = torch.ones(1, length, dtype=torch.long)
    previous = 0
    for level in model.config.levels:
        cost, small = model.cost(level, sequence_length=length), model.cut(level)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            small(ids)
        hidden = small.config.hidden_size
        once = 0 if name.endswith("MaskedLM") or name == "DeltaModernBertModel" else hidden * hidden
        once += 3 * hidden if name.endswith("Classification") else 0
        assert counter.get_total_flops() == 2 * (length * cost["macs"] + once)
        assert cost["parameters"] == sum(parameter.numel() for parameter in small.parameters())
        assert cost["bytes_per_vector"] == 4 * hidden
        assert cost["parameters"] > previous
        previous = cost["parameters"]


@pytest.mark.parametrize("budgets", ["heads", "joint-mixed"])
@pytest.mark.parametrize("name", MASKED)
def test_lora_acts_learns_and_merges_at_every_level(name, budgets, tmp_path):
    plain = make(name, budgets)
    before = {level: outputs(plain, level) for level in plain.config.levels}
    torch.manual_seed(0)
    model = get_nested_lora_model(make(name, budgets), LoraConfig(r=3, target_modules="all-linear")).eval()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted = {level: outputs(model, level) for level in before}
    for level, value in adapted.items():
        assert (value - before[level]).abs().max() > 0.01
        model.zero_grad()
        model(**inputs(), level=level)[0].square().sum().backward()
        gradients = [value for key, value in model.named_parameters() if "lora_B" in key and value.grad is not None]
        assert gradients and all(value.grad.abs().sum() > 0 for value in gradients)
    merged = model.merge_and_unload()
    assert type(merged) is type(plain)
    for level, value in adapted.items():
        # A level of the adapted model is the level of the merged one: A and B are sliced as the weights are.
        torch.testing.assert_close(outputs(merged, level), value, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(outputs(merged.cut(level)), value, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_each_form_of_an_export(name, tmp_path):
    cases = {
        "stock": ("stock", "auto", "stock", None),
        "padded": ("heads", "auto", "stock_padded", "has 1 heads of width 8"),
        "mixed": ("mixed", "auto", "stock_padded", "have the feed-forward widths 12, 24"),
        "code": ("heads", "remote_code", "remote_code", None),
        "mixed code": ("mixed", "remote_code", "remote_code", None),
    }
    for case, (budgets, wanted, form, reason) in cases.items():
        model = make(name, budgets)
        level = model.config.levels[0]
        exported = export_level(model, level, tmp_path / case, format=wanted)
        assert (exported.form, exported.levels) == (form, [level])
        assert exported.max_difference <= 1e-5
        assert (exported.reason is None) if reason is None else (reason in exported.reason)
        listed = {entry.name: entry.cost for entry in Manifest.from_folder(tmp_path / case).levels}
        costs = {level: model.cost(level) for level in model.config.levels}
        assert listed == {level: {**cost, "flops_per_token": 2 * cost["macs"]} for level, cost in costs.items()}
    config = make(name, "heads").config
    code = {path.name for path in (tmp_path / "code").glob("*.py")}
    assert {"budgets.py", "budgeted_model.py", f"modeling_{config.model_type}.py"} <= code
    other = "delta_bert" if family(name) == "DeltaModernBert" else "delta_modernbert"
    assert f"modeling_{other}.py" not in code
