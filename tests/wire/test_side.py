"""Messages beside AV5: each is the octets that docs/asn1 says, and nothing else is one."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from albatross_pki.authorised import (
    MOST_CERTIFICATE_IDS,
    AskRemembered,
    AuthorisedRequest,
    CertificateId,
    ChainPolicy,
    Effect,
    ExecuteRequest,
    Executing,
    JudgeRequest,
    LocalRequest,
    Outcome,
    Remembered,
    Revoked,
    SideMessage,
    Stream,
    Verdict,
)
from albatross_pki.commands import PolicyInfo
from albatross_pki.extensions import Events, Status
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.side import decode_side, encode_side
from tests.wire import oracle

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = bytes(range(32))
EXAMPLES: list[SideMessage] = [
    Outcome(True, Effect.CHANGED, "created unikernel"),
    JudgeRequest("192.0.2.1:4000", (b"one", b"other")),
    Verdict(Name.parse("a:b"), (), Stream.IMAGE, 4096, "single"),
    Verdict(Name(), ("revoked", "expired")),
    ExecuteRequest(0),
    ExecuteRequest(4096, DIGEST),
    Executing(),
    LocalRequest(Name.parse("a:b"), Status()),
    LocalRequest(Name.parse("a:"), Events(NOW)),
    AskRemembered(),
    AskRemembered(CertificateId(DIGEST, 0)),
    Remembered(()),
    Remembered((CertificateId(DIGEST, 1), CertificateId(DIGEST, 2**159))),
    Revoked((CertificateId(DIGEST, 1),), stop=True),
    AuthorisedRequest(Name.parse("a:b"), PolicyInfo(), (), CertificateId(DIGEST, 1), NOW),
    AuthorisedRequest(
        name=Name.parse("a:b"),
        command=Status(),
        policies=(ChainPolicy(Path(("a",)), Policy(frozenset({0}), 1, 32), CertificateId(DIGEST, 2**159), NOW, NOW),),
        leaf=CertificateId(DIGEST, 0),
        not_after=NOW,
        images=frozenset({DIGEST}),
        deployments=frozenset(),
        may_get=True,
    ),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_is_what_the_grammar_says_and_reads_back(message: SideMessage) -> None:
    octets = encode_side(message)
    assert octets == oracle.side(message)
    assert decode_side(octets) == message


def test_every_kind_of_message_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES} == set(get_args(SideMessage))


def test_an_outcome_is_these_octets() -> None:
    octets = encode_side(Outcome(True, Effect.CHANGED, "ok"))
    assert octets.hex(" ") == "a1 0c 30 0a 01 01 ff 0a 01 01 0c 02 6f 6b"


def test_a_policy_is_for_a_path() -> None:
    octets = encode_side(EXAMPLES[-1])
    assert octets.count(b"\x0c\x02a:") == 1
    with pytest.raises(MalformedMessage, match=r'":a" is not a path') as refusal:
        decode_side(octets.replace(b"\x0c\x02a:", b"\x0c\x02:a"))
    assert refusal.value.place == "side message.authorised.policies[0].path"


@pytest.mark.parametrize("size", [1, 31, 33])
def test_the_digest_of_what_was_spooled_is_one_or_nothing(size: int) -> None:
    with pytest.raises(MalformedMessage, match="must have 0 or 32 octets"):
        encode_side(ExecuteRequest(1, bytes(size)))


def test_p04_a_judge_is_not_sent_certificates_without_end() -> None:
    with pytest.raises(MalformedMessage, match="more than 32 elements"):
        encode_side(JudgeRequest("", (b"",) * 33))


def test_what_is_no_message_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="none of the alternatives"):
        encode_side(PolicyInfo())  # type: ignore[arg-type]


@pytest.mark.parametrize("octets", [b"", b"\xa6\x02\x05\x00", b"\xa5\x00", b"\xa5\x02\x05\x00\x00", b"\x30\x00"])
def test_what_is_no_message_is_refused(octets: bytes) -> None:
    with pytest.raises(MalformedMessage) as refusal:
        decode_side(octets)
    assert refusal.value.place.startswith("side message")


def test_p04_a_message_about_revocation_has_a_bounded_number_of_certificates() -> None:
    most = tuple(CertificateId(DIGEST, serial) for serial in range(MOST_CERTIFICATE_IDS))
    assert decode_side(encode_side(Remembered(most))) == Remembered(most)
    with pytest.raises(MalformedMessage):
        encode_side(Revoked((*most, CertificateId(DIGEST, 2**100)), stop=False))
