"""Values of options, where click is too kind."""

import click
import pytest

from albatross_pki.option_values import FloatRange


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1.5", 1.5), ("1e3", 1000.0)])
def test_numbers_within_the_bounds(text: str, value: float) -> None:
    assert FloatRange(0, 1000).convert(text, None, None) == value


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "inf", "-1", "1001", "", "x"])
def test_what_is_no_number_within_the_bounds(text: str) -> None:
    with pytest.raises(click.BadParameter):
        FloatRange(0, 1000).convert(text, None, None)
