"""Somebody who has taken over the endpoint's process: run as its user, in the deployment's directory.

Reads a chain (PEM) from standard input, tries everything that this user could try, and prints as JSON what came of it:
``{"connected": [names of sockets], "answers": {attempt: reasons or what happened}}``.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from albatross_pki.authorised import (
    AuthorisedRequest,
    CertificateId,
    Effect,
    ExecuteRequest,
    JudgeRequest,
    Outcome,
    SideMessage,
    Verdict,
)
from albatross_pki.commands import UnikernelDestroy
from albatross_pki.names import Name
from albatross_pki.pem import certificates
from albatross_pki.wire.framing import frame
from albatross_pki.wire.side import decode_side, encode_side

UTIL = "run/util"


def main() -> None:
    chain = certificates(sys.stdin.buffer.read(), "standard input")
    print(json.dumps({"connected": sockets_that_open(), "answers": attempts(chain)}))


def sockets_that_open() -> list[str]:
    """Every unix socket here that this user can connect to, and every other file of the host that it can open."""
    found = []
    for name in sorted(os.listdir(UTIL)):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(f"{UTIL}/{name}")
            except OSError:
                continue
            found.append(name)
    for name in ("authorise", "authorise/audit.log", "authorise/state.sqlite"):
        if os.access(name, os.R_OK) or os.access(name, os.W_OK):
            found.append(name)
    if os.access(UTIL, os.W_OK):  # who could put sockets of their own there would be a daemon
        found.append(UTIL)
    return found


def attempts(chain: Sequence[bytes]) -> dict[str, str]:
    leaf, *rest = chain
    forged = {
        "one octet of the command changed": [flipped(leaf, leaf.rindex(b"hello")), *rest],
        "the signature changed": [leaf[:-1] + bytes((leaf[-1] ^ 1,)), *rest],
        "without its delegation": [leaf],
        "the delegation alone": list(rest),
        "the delegation twice": [leaf, *rest, *rest],
        "no certificate": [],
        "no certificate but octets": [b"\x30\x03\x02\x01\x01"],
        "a chain of a hundred": [leaf, *rest * 20],
    }
    answers = {name: ask(JudgeRequest("127.0.0.1:1", tuple(presented))) for name, presented in forged.items()}
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    made_up = AuthorisedRequest(Name.parse("other:hello"), UnikernelDestroy(), (), CertificateId(bytes(32), 1), soon)
    answers["a request that no chain allows"] = ask(made_up)
    answers["an outcome"] = ask(Outcome(True, Effect.NONE, "nothing happened, use it again"))
    answers["execution without a verdict"] = ask(ExecuteRequest(0, b""))
    answers["a verdict"] = ask(Verdict(Name.parse("other:hello")))
    return answers


def flipped(der: bytes, position: int) -> bytes:
    return der[:position] + bytes((der[position] ^ 1,)) + der[position + 1 :]


def ask(message: SideMessage) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(f"{UTIL}/authorise.sock")
        try:
            connection.sendall(frame(encode_side(message)))
            octets = connection.recv(1 << 20)
        except (BrokenPipeError, ConnectionResetError):
            octets = b""
        if not octets:
            return "closed"
        answer = decode_side(octets[4:])
        return "; ".join(answer.reasons) if isinstance(answer, Verdict) else repr(answer)


if __name__ == "__main__":
    main()
