"""Detokenizer: the text of the parts is the text of the whole, and ends before a stop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bough.engine.detokenizer import Detokenizer


class ByteTokenizer:
    """One token a byte; tokens from 256 on are special."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        special = b"" if skip_special_tokens else b"<s>"
        parts = [bytes([id_]) if id_ < 256 else special for id_ in token_ids]
        return b"".join(parts).decode("utf-8", errors="replace")


class WordTokenizer:
    """One token a word, with a space between words, as sentencepiece decodes."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[id_] for id_ in token_ids)


def detokenize(
    token_ids: Sequence[int],
    prompt: Sequence[int] = (),
    stop: tuple[str, ...] = (),
    skip_special_tokens: bool = True,
) -> tuple[list[str], bool]:
    """Texts after each token and at the end, and whether a stop string was met."""
    detokenizer = Detokenizer(ByteTokenizer(), prompt, stop, skip_special_tokens)
    texts = []
    for token_id in token_ids:
        is_stopped = detokenizer.push(token_id)
        texts.append(detokenizer.text)
        if is_stopped:
            return texts, True
    is_stopped = detokenizer.finish()
    return [*texts, detokenizer.text], is_stopped


@pytest.mark.parametrize("text", ["hello", "naïve", "日本語のテキスト", "🙂🙃" * 9, "a\ufffdb", ""])
def test_text_is_the_text_of_all_tokens(text: str) -> None:
    texts, _ = detokenize(text.encode())
    assert texts[-1] == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_broken_characters_read_as_they_do_in_one_piece(data: bytes) -> None:
    texts, _ = detokenize(data)
    assert texts[-1] == data.decode("utf-8", errors="replace")


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab🙂é", max_size=40),
    st.lists(st.text(alphabet="ab🙂é", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_before_the_first_stop_and_never_takes_back(text: str, stop: list[str]) -> None:
    texts, is_stopped = detokenize(text.encode(), stop=tuple(stop))
    ends = [text.find(string) for string in stop if string in text]
    assert is_stopped == bool(ends)
    # Tokens after the one that completes a stop are not read, so a stop that begins earlier but
    # is completed later does not count.
    completed = [text.find(string) + len(string) for string in stop if string in text]
    first = [at for at, end in zip(ends, completed, strict=True) if end == min(completed)]
    assert texts[-1] == (text[: min(first)] if ends else text)
    for before, after in pairwise(texts):
        assert after.startswith(before)


def test_a_stop_across_tokens_is_never_shown() -> None:
    texts, is_stopped = detokenize(b"one END two", stop=("END",))
    assert is_stopped
    assert texts == ["o", "on", "one", "one ", "one ", "one ", "one "]


def test_what_only_resembled_a_stop_is_given_out() -> None:
    texts, is_stopped = detokenize(b"ENx EN", stop=("END",))
    assert not is_stopped
    assert texts == ["", "", "ENx", "ENx ", "ENx ", "ENx ", "ENx EN"]


def test_the_prompt_completes_a_character_that_it_began() -> None:
    prompt, rest = "é".encode()[:1], "é!".encode()[1:]
    texts, _ = detokenize(rest, prompt=prompt)
    assert texts[-1] == "é!"


def test_a_word_keeps_the_space_before_it() -> None:
    detokenizer = Detokenizer(WordTokenizer(["the", "cat", "sat"]), [0])
    texts = []
    for token_id in [1, 2] * 20:
        detokenizer.push(token_id)
        texts.append(detokenizer.text)
    assert texts[:2] == [" cat", " cat sat"]
    assert texts[-1] == " cat sat" * 20


def test_special_tokens_are_left_out_unless_asked_for() -> None:
    token_ids = [*b"ab", 300, *b"c"]
    assert detokenize(token_ids)[0][-1] == "abc"
    assert detokenize(token_ids, skip_special_tokens=False)[0][-1] == "ab<s>c"
