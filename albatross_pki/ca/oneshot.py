"""One leaf for one command, made in memory by whoever holds a delegation: what one-shot clients do.

The same plan, profile and self-check as signing a request, without ledger and files: the certificate is good for five
minutes, and its key is forgotten after use. At any depth of delegation, with the bundle as signing wrote it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issuer import assemble
from albatross_pki.ca.plan import ONE_SHOT_LIFETIME, Terms, make_plan
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import AnyCommand, Constraints, ImageBinding
from albatross_pki.keys import KeyType, PrivateKey, generate_key
from albatross_pki.pem import certificates
from albatross_pki.policy.roles import Dialect, Role

MAX_LEAF = 2**24 - 1  # octets: the length of a certificate in TLS has three octets (RFC 8446 4.4.2)


def issue_oneshot(
    ca_bundle_pem: bytes,
    ca_key: PrivateKey,
    name_label: str | None,
    command: AnyCommand,
    binding: ImageBinding | None = None,
    *,
    key_type: str = "ed25519",
    once: bool = True,
    dialect: Dialect = Dialect.NATIVE,
    constraints: Constraints | None = None,
    roots: Iterable[bytes] = (),
    unbound: bool = False,
    now: datetime | None = None,
    place: str = "the CA certificate",
) -> tuple[list[bytes], PrivateKey]:
    """The chain to present (DER, leaf first, without root) and the leaf's key.

    ``name_label`` of ``None`` stands for the delegation's path itself. ``roots`` are the DER of the server's CA file:
    with them the chain is judged whole. Raises ``Refused`` with every reason, ``WrongKey``, ``BadCertificate``.
    """
    now = now or datetime.now(UTC)
    issuer = assemble(certificates(ca_bundle_pem, place), ca_key, place, roots)
    key = generate_key(KeyType(key_type))
    request = RequestFacts(b"", name_label, key.public_key(), command=command, constraints=constraints, binding=binding)
    terms = Terms(Role.LEAF, dialect, lifetime=ONE_SHOT_LIFETIME, reusable=not once, unbound=unbound)
    made = certify(make_plan(request, issuer, terms, now), issuer, now=now)
    if len(made.bundle[0]) > MAX_LEAF:
        raise AlbatrossError(
            f"certificate too big for TLS: {len(made.bundle[0])} bytes, at most {MAX_LEAF}",
            hint="stream the image (the native dialect does)",
        )
    return list(made.bundle), key
