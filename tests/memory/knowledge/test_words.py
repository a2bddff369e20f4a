from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.knowledge.words import LONGEST_TEXT, LONGEST_WORD, STOPWORDS, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("total_fee", ["total_fee", "total", "fee"]),
        ("parseHTTPReply", ["parsehttpreply", "parse", "http", "reply"]),
        ("shop.fees.total", ["shop.fees.total", "shop", "fees", "total"]),
        ("raise KeyError: 'größe'", ["raise", "keyerror", "key", "error", "größe"]),
        ("__init__", ["init"]),
        ("x = 12 + y", []),
        ("the fee is in it", ["fee"]),
        ("sha256 of v2", ["sha256", "v2"]),
        ("заказ 注文", ["заказ", "注文"]),
    ],
)
def test_names_are_found_whole_and_in_their_parts(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_a_long_text_and_a_long_word_are_bounded() -> None:
    assert words("fee " * LONGEST_TEXT) == ["fee"] * (LONGEST_TEXT // 4)
    assert words("a" * (LONGEST_WORD + 1)) == []
    assert words("a" * LONGEST_WORD) == ["a" * LONGEST_WORD]


@given(st.text(max_size=300))
def test_any_text_gives_words_without_blanks_quotes_or_common_words(text: str) -> None:
    for word in words(text):
        assert len(word) > 1
        assert not set(word) & set(" \t\n\"'*():^-+")
        assert word not in STOPWORDS
