"""The public suite x509-limbo, against our rules for paths.

Used are the cases that say something about chains and not about host names: they are read as chains for the purpose
that a case names, with any CA accepted (none of them carries an extension of Albatross), and the path that
``policy.paths`` finds. Where our verdict is not the suite's, the reason stands in ``divergences.py``; a divergence
that went away fails as well, and so does a reason for a case that does not exist.
"""

import bz2
import json
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from albatross_pki.errors import AlbatrossError
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.chain import JudgeOptions, Purpose, find_path, links, read_anchors
from albatross_pki.policy.judgement import apply
from albatross_pki.policy.path_rules import PATH_RULES
from albatross_pki.policy.paths import FoundPath
from albatross_pki.policy.revocation import Revocations, read_crl
from tests.limbo.divergences import DIVERGENCES

Case = dict[str, Any]
AREAS = ("rfc5280", "pathlen", "pathological", "crl", "cve", "invalid")
ABOUT_NAMES = ("rfc5280::nc::", "rfc5280::san::")
SECONDS_FOR_A_DENIAL_OF_SERVICE = 5
FILE = Path(__file__).with_name("limbo-native.json.bz2")


def _about_chains(case: Case) -> bool:
    return case["id"].startswith(tuple(f"{area}::" for area in AREAS)) and not case["id"].startswith(ABOUT_NAMES)


CASES: list[Case] = [case for case in json.loads(bz2.decompress(FILE.read_bytes()))["testcases"] if _about_chains(case)]


def ders(pems: list[str]) -> list[bytes]:
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in pems]


def refusals(case: Case) -> list[str]:
    """Every reason to refuse the chain of a case; none if it is accepted."""
    now = datetime.fromisoformat(case["validation_time"]) if case["validation_time"] else datetime.now(UTC)
    try:
        anchors = read_anchors(ders(case["trusted_certs"]))
        found = find_path(ders([case["peer_certificate"], *case["untrusted_intermediates"]]), anchors, now)
        options = JudgeOptions(revocations=_revocations(case["crls"], found, now), require_crl=bool(case["crls"]))
    except AlbatrossError as error:
        return [error.message]
    purpose = Purpose.CLIENT if "clientAuth" in case["extended_key_usage"] else Purpose.SERVER
    placed = links(found.path, found.anchor, now=now, options=options, purpose=purpose)
    return [result.sentence for link in placed for result in apply(PATH_RULES, link, "") if not result.ok]


def _revocations(pems: list[str], found: FoundPath, now: datetime) -> Revocations:
    view = Revocations()
    issuers: list[CertificateFacts] = [found.anchor, *found.path[1:]]
    for pem in pems:
        crl = read_crl(x509.load_pem_x509_crl(pem.encode()).public_bytes(Encoding.DER))
        for issuer in issuers:
            view, _ = view.accept(crl, issuer, now)
    return view


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_verdict(case: Case) -> None:
    begin = time.monotonic()
    reasons = refusals(case)
    agrees = (not reasons) == (case["expected_result"] == "SUCCESS")
    if "denial-of-service" in case["features"]:
        assert time.monotonic() - begin < SECONDS_FOR_A_DENIAL_OF_SERVICE
    assert agrees == (case["id"] not in DIVERGENCES), reasons or "accepted"


def test_divergences_are_about_cases() -> None:
    assert set(DIVERGENCES) <= {case["id"] for case in CASES}
    assert len(CASES) == 86
