"""``verify``: the endpoint's judgement of a bundle, rule by rule, and what the chain allows."""

import json
import sys
from datetime import datetime
from typing import Any

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.words import constraints_words, moment, policy_words
from albatross_pki.console_script import report
from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.files import read_file
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.chain import (
    FoundPath,
    Judgement,
    JudgeOptions,
    NoPath,
    Place,
    find_path,
    judge_found,
    read_anchors,
)
from albatross_pki.policy.delegation_rules import policy_of
from albatross_pki.policy.judgement import Purpose
from albatross_pki.policy.revocation import crl_file, lists_in_force
from albatross_pki.syntax import parse_time


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=options.existing)
@click.option("--ca", "roots", required=True, multiple=True, type=options.existing, help="The server's roots.")
@click.option("--crl", "lists", multiple=True, type=options.existing, help="A revocation list (repeatable).")
@click.option("--require-crl", is_flag=True, help="Refuse where a CA of the chain has no list.")
@click.option("--at", "at", metavar="TIME", help="Judge as of this time (RFC 3339); now, if not given.")
@click.option("--host", "hosts", multiple=True, help="A name of the host that judges, or of the server looked for.")
@click.option("--accept-plain-intermediates", is_flag=True)
@click.option("--accept-unbound-images", is_flag=True)
@options.json_option
def verify(
    bundle: str,
    roots: tuple[str, ...],
    lists: tuple[str, ...],
    require_crl: bool,
    at: str | None,
    hosts: tuple[str, ...],
    accept_plain_intermediates: bool,
    accept_unbound_images: bool,
    as_json: bool,
) -> int:
    """Judge a bundle as the server would: every rule for every certificate, and what the chain allows.

    \b
    EXIT STATUS
        0    every rule holds
        116  some rule does not
        124  the files cannot be read

    A bundle that begins with a delegation is judged as something that leaves will stand below; one that begins with a
    server's certificate as clients judge it (--host says whom they look for).

    \b
        albatross-provision-ca verify hello.pem --ca cacert.pem --crl ca.crl
    """
    now = parse_time(at) if at is not None else options.utc_now()
    anchors = read_anchors([der for root in roots for der in certificates(read_file(root), root)])
    ders = certificates(read_file(bundle), bundle)
    try:
        found = find_path(ders, anchors, now)
    except NoPath as error:
        report(error)
        return int(ExitCode.CHAIN)
    read = [(place, crl_file(read_file(place), place)) for place in lists]
    revocations, stray = lists_in_force(read, (*found.path, found.anchor), now)
    judged = JudgeOptions(
        hosts=frozenset(hosts),
        revocations=revocations,
        require_crl=require_crl,
        accept_plain_intermediates=accept_plain_intermediates,
        accept_unbound_images=accept_unbound_images,
    )
    first = found.path[0]
    for text in stray:
        options.note(text)
    if not first.is_ca and Purpose.SERVER.value in (first.extended_key_usage or ()):
        return _verify_server(found, hosts, now, judged)
    judgement = judge_found(found, now=now, options=judged, end=Place.CA if first.is_ca else Place.LEAF)
    second = _second_judge(found, now)
    if as_json:
        sys.stdout.write(json.dumps(_document(judgement, second), indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(judgement, found, second)) + "\n")
    return int(ExitCode.OK if judgement.accepted and second is None else ExitCode.CHAIN)


def _second_judge(found: FoundPath, now: datetime) -> str | None:
    from albatross_pki.ca.openssl import openssl_refuses

    return openssl_refuses([certificate.der for certificate in found.path], found.anchor.der, now)


def _verify_server(found: FoundPath, hosts: tuple[str, ...], now: datetime, judged: JudgeOptions) -> int:
    from albatross_pki.policy.server import judge_server

    if not hosts:
        raise AlbatrossError("this is a server's certificate: which host do clients look for?", hint="--host NAME")
    wrong = 0
    for host in hosts:
        violations = judge_server(found.path, found.anchor, host=host, now=now, options=judged)
        wrong += len(violations)
        for text in [violation.text for violation in violations] or ["accepted by clients"]:
            click.echo(f"{host}: {text}")
    return int(ExitCode.CHAIN if wrong else ExitCode.OK)


def _lines(judgement: Judgement, found: FoundPath, second: str | None) -> list[str]:
    width = max(len(result.rule) for result in judgement.rules)
    lines = []
    certificate = None
    for result in judgement.rules:
        if result.certificate != certificate:
            certificate = result.certificate
            lines.append(certificate or "the chain")
        mark = "ok  " if result.ok else "FAIL"
        lines.append(f"  {mark} {result.rule:<{width}}  {result.text} ({result.source})")
    lines.append("OpenSSL")
    lines.append("  ok" if second is None else f"  FAIL {second}")
    lines += ["", *_tree(found)]
    lines += [f"note: {text}" for text in judgement.notes]
    lines.append("accepted" if judgement.accepted and second is None else "REFUSED")
    return lines


def _tree(found: FoundPath) -> list[str]:
    """The chain from the root down: what each certificate adds and leaves."""
    lines = [f"root {found.anchor.title}, until {moment(found.anchor.not_after)}"]
    for depth, certificate in enumerate(reversed(found.path), 1):
        lines += _branch(certificate, "   " * (depth - 1))
    return lines


def _branch(certificate: CertificateFacts, indent: str) -> list[str]:
    from albatross_pki.ca.renewal import role_of
    from albatross_pki.ca.words import command_words
    from albatross_pki.policy.leaf_rules import command_of

    lines = [f"{indent}└─ {role_of(certificate).value} {certificate.title}, until {moment(certificate.not_after)}"]
    policy, command = policy_of(certificate), command_of(certificate)
    said = [policy_words(policy)] if policy is not None else []
    said += command_words(command, certificate.binding) if command is not None and policy is None else []
    said += constraints_words(certificate.constraints) if certificate.constraints is not None else []
    return lines + [f"{indent}      {line}" for line in said]


def _document(judgement: Judgement, second: str | None) -> dict[str, Any]:
    return {
        "accepted": judgement.accepted and second is None,
        "name": None if judgement.name is None else str(judgement.name),
        "rules": [
            {
                "rule": result.rule,
                "certificate": result.certificate,
                "ok": result.ok,
                "text": result.text,
                "source": result.source,
            }
            for result in judgement.rules
        ],
        "openssl": second,
        "policies": [{"path": str(item.path), "policy": policy_words(item.policy)} for item in judgement.policies],
        "constraints": constraints_words(judgement.constraints),
        "notes": list(judgement.notes),
    }
