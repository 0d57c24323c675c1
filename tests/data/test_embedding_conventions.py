import numpy as np
import pytest

from hf_matryoshka.data.embedding_conventions import (
    EMBEDDING_CONVENTIONS,
    check_convention,
    check_conversion,
    check_lengths,
    convert_embeddings,
    mean_radius,
)


RAW = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], dtype=np.float32)
UNIT = np.array([[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]], dtype=np.float32)


def test_there_is_one_list_of_names():
    from hf_matryoshka.modeling import configuration_matryoshka_funnel

    assert EMBEDDING_CONVENTIONS is configuration_matryoshka_funnel.EMBEDDING_CONVENTIONS
    assert sorted(EMBEDDING_CONVENTIONS) == ["mean_norm", "raw_mean", "st_dense_norm"]


def test_raw_means_get_unit_length_and_zeros_stay():
    np.testing.assert_allclose(convert_embeddings(RAW, "raw_mean", "mean_norm"), UNIT, atol=1e-7)


def test_unit_means_get_the_mean_length_of_raw_ones():
    assert mean_radius(RAW) == pytest.approx(7 / 3)
    expected = UNIT * np.float32(2.5)
    np.testing.assert_allclose(convert_embeddings(UNIT, "mean_norm", "raw_mean", 2.5), expected, atol=1e-6)
    # Reconstructions of unit vectors are shorter; their direction counts.
    np.testing.assert_allclose(convert_embeddings(UNIT * 0.7, "mean_norm", "raw_mean", 2.5), expected, atol=1e-6)


@pytest.mark.parametrize("convention", ["st_dense_norm", "mean_norm"])
def test_embeddings_of_a_convention_with_unit_length_have_it_afterwards(convention):
    np.testing.assert_allclose(convert_embeddings(RAW, convention, convention), UNIT, atol=1e-7)


@pytest.mark.parametrize("convention", ["raw_mean", None])
def test_other_embeddings_stay_as_they_are(convention):
    np.testing.assert_array_equal(convert_embeddings(RAW, convention, convention), RAW)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("raw_mean", "st_dense_norm"),
        ("mean_norm", "st_dense_norm"),
        ("st_dense_norm", "raw_mean"),
        ("st_dense_norm", "mean_norm"),
        (None, "raw_mean"),
    ],
)
def test_other_conversions_are_refused_by_name(source, target):
    named = repr(source) if source else "no stated convention"
    with pytest.raises(ValueError, match=f"{named} cannot be turned into '{target}' ones"):
        convert_embeddings(RAW, source, target, 2.0)


@pytest.mark.parametrize("radius", [None, 0, -1.0, float("nan"), float("inf")])
def test_the_mean_length_must_be_given(radius):
    with pytest.raises(ValueError, match=f"a positive number that .* gives; got {radius}"):
        check_conversion("mean_norm", "raw_mean", radius)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no embedding convention 'gtr'; give one of 'raw_mean', 'st_dense_norm'"):
        check_convention("gtr", "raw_mean")


def test_a_mismatch_names_both_conventions():
    check_convention("raw_mean", "raw_mean")
    check_convention(None, "mean_norm")
    with pytest.raises(ValueError, match="^my texts follow the convention 'mean_norm', but 'raw_mean' is needed; .*$"):
        check_convention("raw_mean", "mean_norm", what="my texts")
    # A stated convention is not met by an encoder that follows none.
    with pytest.raises(ValueError, match="follow none of the known conventions, but 'raw_mean' is needed"):
        check_convention("raw_mean", None)


def test_lengths_tell_raw_means_from_the_others():
    for convention in ("st_dense_norm", "mean_norm", None):
        check_lengths(UNIT, convention)
        # As vectors look that were stored in bfloat16.
        check_lengths(UNIT * np.float32(1.003), convention)
    check_lengths(RAW, "raw_mean")
    check_lengths(np.zeros((2, 2), dtype=np.float32), "raw_mean")
    with pytest.raises(ValueError, match="all have unit length, so they follow no 'raw_mean'"):
        check_lengths(UNIT, "raw_mean")
    with pytest.raises(ValueError, match="convention 'mean_norm' have unit length, got length 5 in row 0"):
        check_lengths(RAW, "mean_norm")


def test_bad_vectors_are_refused():
    with pytest.raises(ValueError, match="embeddings must be finite .* got NaN in row 0"):
        convert_embeddings(np.full((2, 2), np.nan), "raw_mean", "mean_norm")
