"""Constraints as they are typed: options in, ``Constraints`` out.

A word list of ``all`` spells out every command there is today: a permission never grows by itself. Images are named by
their file or by their digest; names and patterns are taken in lower case.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

import click

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import COMMAND_WORDS, Constraints
from albatross_pki.files import read_file

ALL = "all"
_DIGEST = re.compile(r"(?:sha256[:-])?([0-9a-fA-F]{64})", re.ASCII)
_PATTERN = re.compile(r"(?=.)[a-z0-9.]?[a-z0-9.-]{0,62}\*?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}", re.ASCII)
_IMAGE_LIMIT = 1 << 30


def constraint_options(*spellings: str) -> list[click.Parameter]:
    """The options of a request that may carry constraints; ``spellings`` are further ones of ``--permission``."""
    several: dict[str, Any] = {"multiple": True}
    return [
        click.Option(
            [*spellings, "--permission", "--only-command", "words"],
            metavar="WORD",
            help="Only this command (repeatable; or all).",
            **several,
        ),
        click.Option(["--only-image", "images"], metavar="FILE|SHA256", help="Only this image may run.", **several),
        click.Option(["--only-name", "patterns"], metavar="PATTERN", help="Only names like this (web*).", **several),
        click.Option(["--only-host", "hosts"], metavar="HOST", help="Only on the server of this name.", **several),
        click.Option(
            ["--only-deployment", "deployments"], metavar="SHA256", help="Only this configuration (inspect).", **several
        ),
        click.Option(["--once"], is_flag=True, help="Each command takes effect at most once."),
    ]


OPTION_NAMES = ("words", "images", "patterns", "hosts", "deployments", "once")


def typed_constraints(
    words: Sequence[str],
    images: Sequence[str],
    patterns: Sequence[str],
    hosts: Sequence[str],
    deployments: Sequence[str],
    once: bool,
) -> Constraints | None:
    """The constraints that were typed, ``None`` for none at all; raises ``Refused`` with everything that is wrong."""
    wrong: list[str] = []
    constraints = Constraints(
        commands=_command_words(words, wrong) if words else None,
        images=frozenset(filter(None, (_image(text, wrong) for text in images))) if images else None,
        names=_matching(patterns, _PATTERN, "a pattern of names ('*' only at its end)", wrong) if patterns else None,
        hosts=_matching(hosts, _HOST, "a host's name", wrong) if hosts else None,
        deployments=frozenset(filter(None, (_digest(text, wrong) for text in deployments))) if deployments else None,
        once=once,
    )
    if wrong:
        raise Refused(wrong)
    return None if constraints == Constraints() else constraints


def _command_words(words: Sequence[str], wrong: list[str]) -> frozenset[str]:
    typed = {word.strip().lower().replace("_", "-") for text in words for word in text.split(",")}
    if ALL in typed:
        return COMMAND_WORDS
    unknown = sorted(typed - COMMAND_WORDS)
    if unknown:
        wrong.append(f"no such command: {', '.join(unknown)} (there are {', '.join(sorted(COMMAND_WORDS))}, or all)")
    return frozenset(typed & COMMAND_WORDS)


def _matching(texts: Sequence[str], form: re.Pattern[str], title: str, wrong: list[str]) -> frozenset[str]:
    lowered = frozenset(text.lower() for text in texts)
    wrong += [f"'{text}' is not {title}" for text in sorted(lowered) if not form.fullmatch(text)]
    return lowered


def _digest(text: str, wrong: list[str]) -> bytes | None:
    match = _DIGEST.fullmatch(text)
    if match is None:
        wrong.append(f"'{text}' is not a SHA-256 digest of 64 hexadecimal digits")
        return None
    return bytes.fromhex(match.group(1))


def _image(text: str, wrong: list[str]) -> bytes | None:
    match = _DIGEST.fullmatch(text)
    if match is not None and not os.path.exists(text):
        return bytes.fromhex(match.group(1))
    try:
        return hashlib.sha256(read_file(text, _IMAGE_LIMIT)).digest()
    except (OSError, AlbatrossError):
        wrong.append(f"'{text}' is neither a file that can be read nor a SHA-256 digest")
        return None
