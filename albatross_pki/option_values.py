"""Values of options that every program may have, beyond what click brings."""

from typing import Any

import click


class FloatRange(click.FloatRange):
    """click's range of numbers, which does not take ``nan`` for one: it is neither below nor above any bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is no number", param, ctx)
        return number
