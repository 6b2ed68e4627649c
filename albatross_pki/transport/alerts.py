"""What a TLS alert means to the person at this end (RFC 8446 6), and what the program's exit status becomes.

OpenSSL names what it received ``…_ALERT_…`` and what it found itself otherwise; both come as ``ssl.SSLError.reason``.
"""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime

from albatross_pki.errors import ExitCode
from albatross_pki.transport.clocks import EXPIRED, NOT_YET_VALID, at, own_difference, server_difference
from albatross_pki.transport.errors import ConnectionCut, TransportError

_OURS = {  # alerts about our own certificate
    "BAD_CERTIFICATE": (  # X509_V_ERR_CERT_NOT_YET_VALID among others, as OpenSSL maps them
        "the server refused our certificate chain: a certificate is broken, or not valid yet by the server's clock",
        "look at the dates with 'albatross-provision-ca inspect', and compare this machine's clock with the server's",
    ),
    "UNSUPPORTED_CERTIFICATE": (
        "the server refused our certificate: it is not made for TLS clients",
        "look at its extended key usage with 'albatross-provision-ca inspect'",
    ),
    "CERTIFICATE_REVOKED": ("the server refused our certificate: it was revoked", None),
    "CERTIFICATE_EXPIRED": (
        "the server refused our certificate: it, or one above it, is not valid at this time",
        "look at the dates with 'albatross-provision-ca inspect', and at this machine's clock",
    ),
    "CERTIFICATE_UNKNOWN": ("the server refused our certificate chain", None),
    "UNKNOWN_CA": (
        "the server does not know the CA that our chain ends at, or a certificate of the chain is missing",
        "the bundle must hold every certificate between the leaf and the server's root",
    ),
    "CERTIFICATE_REQUIRED": ("the server wants a client certificate, and none was sent", None),
    "DECRYPT_ERROR": ("the server refused our certificate: a signature is wrong", None),
    "ACCESS_DENIED": (
        "the server takes no more connections from this address now",
        "try again later, or ask the operator about its bounds on connections",
    ),
    "ILLEGAL_PARAMETER": (
        "the server refused what we sent; a certificate chain over its limit is refused so",
        "leave the image out of the certificate: it is then streamed and bound by its digest",
    ),
}
_TIMES = {
    NOT_YET_VALID: "its certificate, or one above it, is not valid yet",
    EXPIRED: "its certificate, or one above it, has expired",
}
_PROTOCOL = {
    "PROTOCOL_VERSION": "the other side does not speak TLS 1.3",
    "HANDSHAKE_FAILURE": "no common way to speak TLS with the other side",
    "INTERNAL_ERROR": "the other side failed inside its TLS",
    "MISSING_EXTENSION": "the other side misses a TLS extension",
    "RECORD_OVERFLOW": "the other side refused an over-long TLS record",
    "UNEXPECTED_MESSAGE": "the other side got a TLS message that it did not expect",
    "USER_CANCELLED": "the other side cancelled the handshake",
    "UNRECOGNIZED_NAME": "the other side does not know itself by that name",
}


class CertificateRefused(TransportError):
    """The server refused our certificate chain with a TLS alert; ``alert`` is its name."""

    exit_code = ExitCode.LOCAL_AUTHENTICATION

    def __init__(self, message: str, alert: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.alert = alert

    def about(self, chain: Sequence[bytes], now: datetime) -> "CertificateRefused":
        """The same with the dates of our ``chain`` (DER) and our clock, if the server's may be another one."""
        difference = own_difference(self.alert, chain, now)
        if difference is None:
            return self
        message = "; ".join((self.message, *difference.reasons))
        return CertificateRefused(message, self.alert, hint=difference.hint)


class ServerRefused(TransportError):
    """We refused the server's certificate, before it got ours; ``reasons`` has every one."""

    exit_code = ExitCode.REMOTE_AUTHENTICATION

    def __init__(self, reasons: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__("the server is not who it should be: " + "; ".join(reasons), hint=hint)
        self.reasons = reasons


def alert_of(error: ssl.SSLError) -> str | None:
    """The name of the alert that we received, without the protocol's prefix; ``None`` if it was none."""
    _, found, name = (error.reason or "").partition("ALERT_")
    return name if found else None


def meaning(error: ssl.SSLError, presented: Sequence[bytes] = ()) -> TransportError:
    """The error for people of what OpenSSL reports to a client; ``presented`` is the server's chain, if it is known."""
    if isinstance(error, ssl.SSLEOFError):
        return ConnectionCut("the connection was cut without a closing alert")
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _TIMES:
        now = datetime.now(UTC)
        difference = server_difference(presented, now)
        if difference is not None:
            return ServerRefused(difference.reasons, hint=difference.hint)
        return ServerRefused(
            (f"{_TIMES[error.verify_code]} by this machine's clock, which says {at(now)}",),
            hint="if the clock is wrong, set it (timedatectl); else its operator has to renew the certificate",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ServerRefused((_lower(error.verify_message or "its certificate does not verify"),))
    alert = alert_of(error)
    if alert in _OURS:
        text, hint = _OURS[alert]
        return CertificateRefused(text, alert, hint=hint)
    if alert is not None:
        return TransportError(_PROTOCOL.get(alert, f"the other side sent the TLS alert {_lower(alert)}"))
    return TransportError(f"TLS failed: {_lower(error.reason or 'unknown reason')}")


def _lower(text: str) -> str:
    return text.replace("_", " ").lower()
