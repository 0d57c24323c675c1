import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.baselines import unit
from hf_matryoshka.evaluation.mteb_encoder import CachedLevelEncoder, FullWidthEncoder, content_revision
from hf_matryoshka.evaluation.mteb_tasks import retrieval_task


WORDS = "cat dog bird fish river city gene cell protein drug".split()


@pytest.fixture(scope="module")
def model(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu")


@pytest.fixture
def encoded(model, monkeypatch):
    """Every text that really goes through the model."""
    texts, original = [], model.encode
    monkeypatch.setattr(model, "encode", lambda batch, **kwargs: texts.extend(batch) or original(batch, **kwargs))
    return texts


@pytest.fixture
def task():
    dataset = RetrievalDataset(
        name="Words",
        corpus_ids=[f"d{i}" for i in range(40)],
        titles=[""] * 40,
        texts=[f"the {WORDS[i % 10]} of the {WORDS[i // 4]} {i}" for i in range(40)],
        query_ids=[f"q{i}" for i in range(10)],
        queries=[f"{WORDS[i]} in {WORDS[(3 * i) % 10]}" for i in range(10)],
        qrels={"test": {f"q{i}": {f"d{(7 * i) % 40}": 1, f"d{(3 * i + 1) % 40}": 1} for i in range(10)}},
    )
    return retrieval_task("Words", dataset)


def _prefix(vectors, level):
    return unit(vectors[:, : int(level[1:])])


def _level(model, level, name="local/model", **kwargs):
    return CachedLevelEncoder(model, _prefix, level, name=name, embed_dim=int(level[1:]), **kwargs)


def _loader(texts):
    return DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)


def _metadata(name="Words"):
    return TaskMetadata(
        name=name,
        description="",
        dataset={"path": "local/words", "revision": "1"},
        type="Retrieval",
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )


def _encode(encoder, texts, prompt_type=None, **kwargs):
    where = {"task_metadata": _metadata(), "hf_split": "test", "hf_subset": "default"}
    return encoder.encode(_loader(texts), prompt_type=prompt_type, **where, **kwargs)


def test_each_text_goes_through_the_model_once_for_all_levels(model, encoded):
    full = FullWidthEncoder(model, progress=False)
    texts = ["the cat", "a dog", "the cat"]
    for level in ("d4", "d16", "d32"):
        vectors = _encode(_level(full, level), texts)
        assert vectors.shape == (3, int(level[1:]))
        np.testing.assert_array_equal(vectors[0], vectors[2])
    _encode(_level(full, "d8"), ["a dog", "a fish"], PromptType.query)
    assert sorted(encoded) == ["a dog", "a fish", "the cat"]


def test_vectors_are_those_of_the_model(model):
    vectors = _encode(_level(model, "d32"), ["the cat", "a dog of the river"])
    np.testing.assert_allclose(vectors, model.encode(["the cat", "a dog of the river"]), atol=1e-6)


def test_a_folder_keeps_the_vectors_over_runs(model, encoded, tmp_path):
    first = FullWidthEncoder(model, cache_dir=tmp_path, progress=False).encode(["the cat", "a dog"])
    second = FullWidthEncoder(model, cache_dir=tmp_path, progress=False).encode(["the cat", "a dog"])
    np.testing.assert_array_equal(first, second)
    assert sorted(encoded) == ["a dog", "the cat"]


def test_prompts_reach_the_model_by_task_and_side(tiny_sentence_transformer):
    prompts = {"query": "gene ", "document": "", "SciFact": "protein "}
    model = SentenceTransformer(tiny_sentence_transformer, device="cpu", prompts=prompts)
    encoder = _level(model, "d32")
    plain, prompted = model.encode(["the cat", "gene the cat"], prompt="")
    np.testing.assert_allclose(_encode(encoder, ["the cat"], PromptType.document)[0], plain, atol=1e-6)
    np.testing.assert_allclose(_encode(encoder, ["the cat"], PromptType.query)[0], prompted, atol=1e-6)
    scifact = encoder.encode(
        _loader(["the cat"]), task_metadata=_metadata("SciFact"), hf_split="test", hf_subset="default"
    )
    np.testing.assert_allclose(scifact[0], model.encode("protein the cat", prompt=""), atol=1e-6)


def test_queries_can_have_a_map_of_their_own(model):
    encoder = _level(model, "d4", query_transform=lambda vectors, level: -_prefix(vectors, level))
    document, query = (_encode(encoder, ["the cat"], kind) for kind in (PromptType.document, PromptType.query))
    np.testing.assert_array_equal(query, -document)


def test_another_precision_is_refused(model):
    with pytest.raises(ValueError, match="precision 'binary' is not possible here"):
        _encode(_level(model, "d4"), ["the cat"], precision="binary")


def test_the_name_must_have_an_organisation(model):
    with pytest.raises(ValueError, match="organisation/model, but is 'minilm'"):
        _level(model, "d4", name="minilm")


def test_mteb_itself_confuses_the_widths_of_a_local_model(model, task, tmp_path):
    """The trap that `CachedLevelEncoder` is for; when this fails, mteb has closed it."""
    cache = mteb.ResultCache(tmp_path)
    scores = []
    for dim in (None, 1):
        model.truncate_dim = dim
        scores.append(mteb.evaluate(model, task, cache=cache, show_progress_bar=False).task_results[0].get_score())
    model.truncate_dim = None
    assert scores[0] == scores[1]


def test_mteb_never_confuses_two_levels_or_two_models(model, task, tmp_path, tiny_sentence_transformer):
    cache = mteb.ResultCache(tmp_path)
    other = SentenceTransformer(tiny_sentence_transformer, device="cpu")
    other[0].model.embeddings.word_embeddings.weight.data.neg_()

    def score(encoder, cache=cache):
        return mteb.evaluate(encoder, task, cache=cache, show_progress_bar=False).task_results[0].get_score()

    encoders = [_level(model, "d32"), _level(model, "d1"), _level(other, "d32")]
    cached = [score(encoder) for encoder in encoders]
    true = [score(encoder, cache=None) for encoder in encoders]
    assert cached == true
    assert len(set(true)) == 3
    found = cache.load_results(models=["local/model"], load_experiments="match_name")
    assert len({(result.model_revision, result.experiment_name) for result in found.model_results}) == 3


def test_the_revision_follows_weights_and_map_and_nothing_else(model, tiny_sentence_transformer):
    same = SentenceTransformer(tiny_sentence_transformer, device="cpu")
    a, b = FullWidthEncoder(model), FullWidthEncoder(same)
    levels = ["d4", "d32"]
    assert content_revision(a, [_prefix], levels) == content_revision(b, [_prefix], levels)
    assert content_revision(a, [_prefix], ["d4"]) != content_revision(a, [_prefix], levels)
    flipped = content_revision(a, [lambda vectors, level: _prefix(vectors[:, ::-1], level)], levels)
    assert flipped != content_revision(a, [_prefix], levels)
    meta = _level(a, "d4").mteb_model_meta
    assert meta.experiment_name == "embed_dim_4"
    assert meta.embed_dim == 4
    assert _level(a, "d4", revision="abc").mteb_model_meta.revision == "abc"
