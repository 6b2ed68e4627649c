"""The second judge: OpenSSL's path validation (RFC 5280 6) of the same chain, offline.

It knows nothing of Albatross: unknown critical extensions pass (``IGNORE_CRITICAL``), because our own fold is exact
about them. It never makes a chain good; a chain that it refuses is worth a warning, as servers ask it first.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509

_IGNORE_CRITICAL = 0x10  # X509_V_FLAG_IGNORE_CRITICAL


def openssl_refuses(path: Sequence[bytes], anchor: bytes, now: datetime) -> str | None:
    """What OpenSSL says against the path (DER, leaf first, without the anchor); ``None`` if nothing."""
    from OpenSSL import crypto

    store = crypto.X509Store()
    store.add_cert(_load(anchor))
    store.set_flags(_IGNORE_CRITICAL)
    store.set_time(now.astimezone(UTC).replace(tzinfo=None))
    context = crypto.X509StoreContext(store, _load(path[0]), [_load(der) for der in path[1:]])
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return None


def _load(der: bytes):  # type: ignore[no-untyped-def]
    from OpenSSL import crypto

    return crypto.X509.from_cryptography(x509.load_der_x509_certificate(der))
