import numpy as np
import pytest

from hf_matryoshka.data import adaptor_batches
from hf_matryoshka.data.adaptor_batches import AdaptorCollator, document_anchors, labelled_anchors, sample_anchors


@pytest.fixture
def corpus():
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def queries(corpus):
    # Query i asks for document i and, a little, for document i + 20.
    return labelled_anchors(corpus[:10] + 0.05, [{i: 2.0, i + 20: 1.0} for i in range(10)], label_weight=0.7)


def batch(collator, pairs):
    return collator([{"source": source, "anchor": anchor} for source, anchor in pairs])


def positions(corpus, found):
    return [int(np.flatnonzero((corpus == row).all(axis=1))[0]) for row in found["candidates"].numpy()]


def test_a_document_is_never_its_own_candidate_or_neighbour(corpus):
    collator = AdaptorCollator(corpus, [document_anchors(corpus)], random_candidates=60)
    found = batch(collator, [(0, row) for row in range(12)])
    assert positions(corpus, found) == list(range(60))
    for row in range(12):
        assert not found["allowed"][row, row] and not found["neighbours"][row, row]
        assert found["allowed"][row].sum() == 59


def test_neighbours_are_those_of_the_whole_corpus(corpus):
    collator = AdaptorCollator(corpus, [document_anchors(corpus)], random_candidates=60, topk=3)
    found = batch(collator, [(0, 5)])
    similarities = corpus @ corpus[5]
    similarities[5] = -2
    assert set(np.flatnonzero(found["neighbours"][0].numpy())) == set(np.argsort(-similarities)[:3])


def test_mined_neighbours_and_all_relevant_documents_are_candidates(corpus):
    collator = AdaptorCollator(
        corpus, [queries(corpus)], random_candidates=1, num_neighbours=4, topk=4, neighbours_per_anchor=4
    )
    found = batch(collator, [(0, 3), (0, 7)])
    candidates = positions(corpus, found)
    for row, query in enumerate((3, 7)):
        nearest = np.argsort(-(corpus @ (corpus[query] + 0.05)))[:4]
        assert set(nearest) <= set(candidates)
        labels = {candidates[column]: found["relevance"][row, column].item() for column in range(len(candidates))}
        assert {document: grade for document, grade in labels.items() if grade} == {query: 2.0, query + 20: 1.0}
    assert found["allowed"].all()
    assert found["label_weight"].tolist() == pytest.approx([0.7, 0.7])


def test_anchors_without_labels_have_no_relevance(corpus):
    collator = AdaptorCollator(corpus, [document_anchors(corpus), queries(corpus)])
    found = batch(collator, [(0, 1), (1, 1)])
    assert found["relevance"][0].sum() == 0 and found["relevance"][1].sum() == 3
    assert found["label_weight"].tolist() == pytest.approx([0.0, 0.7])


def test_a_batch_depends_on_the_seed_and_its_anchors_only(corpus):
    def draw(seed):
        collator = AdaptorCollator(corpus, [document_anchors(corpus)], random_candidates=5, seed=seed)
        batch(collator, [(0, 9)])
        return batch(collator, [(0, 1), (0, 2)])

    again = draw(0)
    assert all((draw(0)[name] == tensor).all() for name, tensor in again.items())
    assert positions(corpus, draw(1)) != positions(corpus, again)


def test_sampled_anchors_follow_the_shares_and_cover_each_set(corpus):
    sets = [document_anchors(corpus, share=3), queries(corpus)]
    rows = sample_anchors(sets, 160, seed=1)
    sources = np.array(rows["source"])
    assert (sources == 0).sum() == 120 and (sources == 1).sum() == 40
    assert np.bincount(np.array(rows["anchor"])[sources == 0]).tolist() == [2] * 60
    assert np.bincount(np.array(rows["anchor"])[sources == 1]).tolist() == [4] * 10
    assert rows["anchor"] == sample_anchors(sets, 160, seed=1)["anchor"]
    assert rows["anchor"] != sample_anchors(sets, 160, seed=2)["anchor"]


def test_bad_data_are_refused(corpus):
    with pytest.raises(ValueError, match="document 60 is relevant to an anchor, but the corpus has 60 documents"):
        AdaptorCollator(corpus, [labelled_anchors(corpus[:1], [{60: 1.0}], 1.0)])
    with pytest.raises(ValueError, match="anchor vectors"):
        AdaptorCollator(corpus, [labelled_anchors(corpus[:1, :4], [{0: 1.0}], 1.0)])


def test_only_the_rows_that_come_are_mined(corpus, monkeypatch):
    sets = [document_anchors(corpus), queries(corpus)]
    rows = sample_anchors(sets, 12, seed=1)
    asked, search = [], adaptor_batches.nearest_neighbours

    def counted(found, *args, **options):
        asked.append(len(found))
        return search(found, *args, **options)

    monkeypatch.setattr(adaptor_batches, "nearest_neighbours", counted)
    few = AdaptorCollator(corpus, sets, rows=rows)
    pairs = list(zip(rows["source"], rows["anchor"], strict=True))
    assert asked == [len({pair for pair in pairs if pair[0] == source}) for source in (0, 1)] and sum(asked) <= 12
    whole = batch(AdaptorCollator(corpus, sets), pairs)
    assert asked[2:] == [60, 10]
    for name, tensor in batch(few, pairs).items():
        np.testing.assert_array_equal(tensor, whole[name])
    # A set of which nothing comes.
    AdaptorCollator(corpus, sets, rows=rows.filter(lambda row: row["source"] == 1))
