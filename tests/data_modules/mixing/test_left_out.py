"""A user is told of the first document that is left out, and at the end of how many."""

from __future__ import annotations

import logging

import pytest

from data_modules.mixing.left_out import LeftOut
from lit_mm.mistake import Mistake


def test_the_first_is_said_and_the_number_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    left_out = LeftOut()
    with caplog.at_level(logging.WARNING):
        for number in (3, 7):
            reports = {"drawings": [f"'{number}.png' broke"]}
            left_out.say_first(reports)
            left_out.count(reports, {"drawings": 500, "text": 10})
        left_out.say_all()
        left_out.say_all()
    assert caplog.messages == [
        "a document of 'drawings' is left out: '3.png' broke",
        "2 documents were left out of 'drawings'; the first: '3.png' broke",
    ]


def test_more_than_one_in_a_hundred_is_a_mistake() -> None:
    left_out = LeftOut()
    left_out.count({"text": ["'a' broke"]}, {"text": 10})  # a single one may be lost however few there are
    with pytest.raises(Mistake, match=r"^source 'text': 2 of about 199 documents broke .* more than 1 %; repair"):
        left_out.count({"text": ["'b' broke"]}, {"text": 199})
