"""How OpenSSL is set up on both sides: TLS 1.3 and nothing older, no tickets, and a verification that leaves the last
word to our own rules.

OpenSSL builds and verifies the path; it is told to let critical extensions through that it does not know, because the
rules behind it are exact about them. X509_V_FLAG_X509_STRICT stays off: Albatross' roots have no key identifiers.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator

from albatross_pki.errors import AlbatrossError
from albatross_pki.transport.openssl import IGNORE_CRITICAL

_STRICT = ssl.VerifyFlags.VERIFY_X509_STRICT


def server_context(chain_file: str, key_file: str, anchors: str | bytes) -> ssl.SSLContext:
    """A server that demands a client certificate below one of ``anchors`` (PEM, or concatenated DER).

    Raises ``AlbatrossError`` for files that cannot be read or do not belong together.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, anchors)
    context.num_tickets = 0  # a ticket holds the client's chain, and breaks above some 64 KB of it
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_SINGLE_ECDH_USE
    _load_identity(context, chain_file, key_file)
    return context


def client_context(chain_pem: bytes, key_pem: bytes, anchors: str | bytes) -> ssl.SSLContext:
    """A client with the given chain (PEM, leaf first) and key, that takes servers below ``anchors``.

    Names are judged by the caller: Albatross' server certificates may have none.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, anchors)
    with _readable(chain_pem) as chain_file, _readable(key_pem) as key_file:
        _load_identity(context, chain_file, key_file)
    return context


def _context(protocol: int, anchors: str | bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags = ssl.VerifyFlags((context.verify_flags & ~_STRICT) | IGNORE_CRITICAL)
    if isinstance(anchors, bytes) and b"-----BEGIN" in anchors:
        anchors = anchors.decode("ascii", "replace")
    try:
        context.load_verify_locations(cadata=anchors)
    except (ssl.SSLError, ValueError) as error:
        raise AlbatrossError("the file of CA certificates holds none that can be read") from error
    return context


def _load_identity(context: ssl.SSLContext, chain_file: str, key_file: str) -> None:
    try:
        context.load_cert_chain(chain_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower()
        if "mismatch" in reason:
            raise AlbatrossError("the private key does not belong to the certificate") from error
        raise AlbatrossError(f"cannot use the certificate and its key: {reason or 'not PEM'}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AlbatrossError(f"cannot read {error.filename or chain_file} or {key_file}: {reason}") from error


def _no_password() -> str:
    raise AlbatrossError("the private key is encrypted, and nobody is here to type its passphrase")


@contextlib.contextmanager
def _readable(octets: bytes) -> Iterator[str]:
    """A name that OpenSSL can open for octets that should never touch a disk."""
    descriptor = os.memfd_create("albatross", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(octets)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
