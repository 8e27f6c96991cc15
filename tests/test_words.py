"""words.py: numbers with their nouns."""

from __future__ import annotations

import pytest

from realign_utils.words import counted


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((1, "model"), "1 model"),
        ((0, "model"), "0 models"),
        ((1, "proxy", "proxies"), "1 proxy"),
        ((2, "proxy", "proxies"), "2 proxies"),
        ((1000, "image"), "1,000 images"),
    ],
)
def test_a_noun_goes_with_its_number(told: tuple, expected: str) -> None:
    assert counted(*told) == expected
