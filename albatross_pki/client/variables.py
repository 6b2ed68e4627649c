"""Environment variables for options: ``ALBATROSS_`` and the option's first long name, in every program for people.

``--ca-key`` is ``ALBATROSS_CA_KEY``. A flag is set by ``1`` or ``true``. An option that may be repeated takes what
blanks separate, and files what colons do (click's rules). What is typed comes first, then a host that was named.
"""

import click

PREFIX = "ALBATROSS_"


def variable_of(option: click.Option) -> str:
    """The name of the variable of an option."""
    spelling = next(each for each in option.opts if each.startswith("--"))
    return PREFIX + spelling.removeprefix("--").replace("-", "_").upper()


def give_variables(command: click.Command) -> None:
    """Let every option of ``command`` be set by its variable."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            parameter.envvar = variable_of(parameter)
