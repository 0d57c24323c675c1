"""Sentences and passages of plain text."""

from hf_matryoshka.data.sentences import split_passages, split_sentences


def test_sentences_end_at_their_punctuation_and_not_after_abbreviations():
    text = 'Dr. Watson, e.g., met J. Smith.\n He said "Stop!" Then  it rained (a lot). 12 days passed.'
    sentences = split_sentences(text)
    assert sentences == [
        "Dr. Watson, e.g., met J. Smith.",
        'He said "Stop!"',
        "Then it rained (a lot).",
        "12 days passed.",
    ]
    assert " ".join(sentences) == " ".join(text.split()) and split_sentences(" ") == []


def test_passages_are_whole_sentences_as_many_as_fit():
    text = "One two three. Four five. Six seven eight nine ten eleven twelve. End."
    assert split_passages(text, 25) == ["One two three. Four five.", "Six seven eight nine ten ", "End."]
    assert split_passages(text, 200) == [text] and split_passages("  as it is ", 20) == ["  as it is "]
