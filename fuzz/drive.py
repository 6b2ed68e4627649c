"""``python -m fuzz.drive ENTRY-POINT [libFuzzer's arguments]``: one entry point under atheris, until it says stop."""

import sys
from importlib import import_module
from typing import Any

atheris: Any = import_module("atheris")  # a tool of its own, not among the tests' requirements


def main(arguments: list[str]) -> None:
    """Hand one claim, with the code under test instrumented, to libFuzzer."""
    name, *rest = arguments
    with atheris.instrument_imports(include=["albatross_pki"]):  # only what is imported here first is instrumented
        claims = import_module("fuzz.claims")
        mutate = import_module("fuzz.mutation").mutate
    atheris.Setup(
        [name, *rest],
        claims.ENTRY_POINTS[name],
        custom_mutator=lambda octets, most, seed: mutate(bytes(octets), most, seed, atheris.Mutate),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
