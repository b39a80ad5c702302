import pytest

from bough.train.tokenizer import END_OF_TEXT, train_tokenizer

TEXT = "def count(path):\n    with open(path) as file:\n        return len(file.read())\n\n\n"
ODD = "\t x  =  '\u00e9\u4e2d\U0001f600'\r\n\n   \n  # 123456 a_b  \nif x:\n\n\n\n\treturn\x00"


@pytest.mark.parametrize("text", [TEXT, ODD, "", " ", "\n"], ids=["code", "odd", "", " ", "line"])
def test_text_survives_encoding_and_decoding(text: str) -> None:
    tokenizer = train_tokenizer([TEXT] * 3, 280)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_indentation_is_one_token_apart_from_the_line_break() -> None:
    tokenizer = train_tokenizer([TEXT * 50], 290)
    tokens = tokenizer.encode("):\n        return").tokens
    assert "\u010a" in tokens
    assert "\u0120" * 8 in tokens


def test_a_prompt_that_ends_with_a_line_break_begins_like_its_whole_text() -> None:
    tokenizer = train_tokenizer([TEXT * 50], 290)
    whole, prompt = tokenizer.encode(TEXT).ids, tokenizer.encode("def count(path):\n").ids
    assert whole[: len(prompt)] == prompt


def test_the_end_of_text_is_token_zero() -> None:
    tokenizer = train_tokenizer([TEXT] * 3, 280)
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_a_vocabulary_larger_than_the_corpus_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size must be at most"):
        train_tokenizer(["abc"], 512)
