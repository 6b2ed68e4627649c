"""A CA whose key is on a PKCS#11 token: a real SoftHSM 2, the same files, and the key never leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.ca.tokens import parse_uri
from albatross_pki.keys import BadKey, KeyType, generate_key, key_pem
from tests.ca.programs import Program, Token

PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from albatross_pki.ca.cli import main; main()"
ROOT = str(Path(__file__).parent.parent.parent)


def ca_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own: a PKCS#11 module reads its configuration once per process."""
    return subprocess.run([sys.executable, "-c", PROGRAM, ROOT, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("key_type", [kind.value for kind in KeyType])
def test_a_ca_on_a_token_signs_and_revokes(
    workplace: Path, ask: Program, ca: Program, token: Token, key_type: str
) -> None:
    Path("import.pem").write_bytes(key_pem(generate_key(KeyType(key_type))))
    token.tool(["--import", "import.pem", "--token", token.label, "--label", "ca", "--id", "01", "--pin", token.pin])
    Path("import.pem").unlink()
    uri = token.uri("ca")
    made = ca_process("generate", "ca", "db", "--key", uri)
    assert made.returncode == 0, made.stderr
    assert not Path("ca.key").exists()
    ask("delegation", "dev", 1)
    for arguments in (
        ("sign", "cacert.pem", "db", uri, "dev.req", "--as=delegation"),
        ("revoke", "db", "dev"),
        ("crl", "cacert.pem", "db", uri),
    ):
        done = ca_process(*arguments)
        assert done.returncode == 0, done.stderr
        assert token.pin not in done.stderr
    assert ca("verify", "dev.pem", "--ca=cacert.pem").status == 0
    assert ca("verify", "dev.pem", "--ca=cacert.pem", "--crl=ca.crl", check=False).status == 116
    wrong = ca_process("sign", "dev.pem", "db", uri, "dev.req", "--as=delegation", "--force")
    assert "doesn't match private key" in wrong.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda uri: uri.replace("object=ca", "object=none"), "fits 0 private keys, not one"),
        (lambda uri: uri.replace("token=albatross", "token=none"), "fits 0 tokens, not one"),
        (lambda uri: uri.replace("softhsm/pin", "softhsm/wrong"), "the token refuses"),
        (lambda uri: uri.replace("libsofthsm2.so", "nothing.so"), "cannot load the PKCS#11 module"),
        (lambda uri: uri.partition("&pin-source")[0], "there is no terminal to ask on"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(workplace: Path, token: Token, change, said: str) -> None:  # type: ignore[no-untyped-def]
    (token.directory / "wrong").write_text("9999")
    refused = subprocess.run(
        [sys.executable, "-c", PROGRAM, ROOT, "generate", "ca", "db", "--key", change(token.uri("ca"))],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert refused.returncode == 124
    assert refused.stderr.startswith("error: ") or "\nerror: " in refused.stderr
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not Path("cacert.pem").exists()


def test_uris_are_read_as_rfc_7512_has_them() -> None:
    uri = parse_uri("pkcs11:token=The%20token;object=ca%3b;id=%01%ff;type=private?pin-value=12%2634&module-path=/a.so")
    assert uri.path == {"token": b"The token", "object": b"ca;", "id": b"\x01\xff", "type": b"private"}
    assert uri.query == {"pin-value": b"12&34", "module-path": b"/a.so"}
    assert "12" not in uri.place


@pytest.mark.parametrize(
    "text",
    [
        *("pkcs11:", "pkcs11:token=x", "file:x", "pkcs11:object=a;object=b", "pkcs11:object", "pkcs11:object=a;x-y=1"),
        *("pkcs11:object=a;type=cert", "pkcs11:object=a?x-y=1", "pkcs11:object=a;library-version=1"),
    ],
)
def test_uris_that_do_not_name_one_key_are_refused(text: str) -> None:
    with pytest.raises(BadKey):
        parse_uri(text)
