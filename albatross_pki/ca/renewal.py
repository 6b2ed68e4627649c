"""A certificate once more: same rights, same place, new serial and validity, with the same key or a new one.

1. only what this CA issued is renewed: it is in the ledger, or signed by the key that is to sign again;
2. what is revoked is not renewed;
3. what the old certificate says is planned anew as if it had been requested, so that everything that is checked for a
   request is checked here: a policy that lies no longer within the issuer's is refused;
4. the lifetime is the old one's, unless the operator says another.
"""

import hashlib
from datetime import timedelta

from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issuer import Issuer, is_signed_by
from albatross_pki.ca.ledger import LedgerView, serial_text
from albatross_pki.ca.plan import BACKDATED, Terms
from albatross_pki.errors import Refused
from albatross_pki.keys import PublicKey, accepted_public_key
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.judgement import Purpose
from albatross_pki.policy.leaf_rules import command_of
from albatross_pki.policy.roles import Dialect, Role


def role_of(certificate: CertificateFacts) -> Role:
    """What a certificate of ours or upstream's is, by what stands in it."""
    if certificate.is_ca:
        if certificate.albatross is not None:
            return Role.DELEGATION
        return Role.ROOT if certificate.self_issued else Role.PERMISSION
    if Purpose.SERVER.value in (certificate.extended_key_usage or ()):
        return Role.SERVER
    return Role.LEAF


def check_renewable(certificate: CertificateFacts, issuer: Issuer, view: LedgerView) -> None:
    """Raise ``Refused`` if this CA did not issue ``certificate``, or revoked it."""
    known = view.issued_where("digest", hashlib.sha256(certificate.der).hexdigest())
    if not known and not is_signed_by(certificate, issuer.certificate):
        raise Refused([f"{certificate.title} was not issued here: neither the ledger nor the key knows it"])
    key = known[0].issuer if known else issuer.certificate.spki_sha256.hex()
    if (key, serial_text(certificate.serial)) in view.revocations:
        raise Refused(
            [f"{certificate.title} is revoked, and what is revoked is not renewed"], hint="sign a new request"
        )


def as_request(certificate: CertificateFacts, key: PublicKey | None, place: str) -> RequestFacts:
    """What the certificate would have been requested with; ``key`` is the new one, if there is one."""
    return RequestFacts(
        der=b"",
        label=certificate.common_name,
        public_key=key if key is not None else accepted_public_key(certificate.parsed.public_key(), place),
        command=command_of(certificate),
        constraints=certificate.constraints,
        binding=certificate.binding,
        path_length=certificate.path_length,
        host_names=(*certificate.dns_names, *(str(address) for address in certificate.ip_addresses)),
    )


def renewal_terms(
    certificate: CertificateFacts, dialect: Dialect, lifetime: timedelta | None, *, accept_plain: bool = False
) -> Terms:
    """The terms of the old certificate. A leaf says ``once`` again exactly if it said so before."""
    role = role_of(certificate)
    return Terms(
        role=role,
        dialect=dialect,
        lifetime=lifetime or lifetime_of(certificate),
        path_length=certificate.path_length if role.is_authority and dialect is Dialect.NATIVE else None,
        reusable=certificate.constraints is None or not certificate.constraints.once,
        unbound=True,
        accept_plain_intermediates=accept_plain,
    )


def lifetime_of(certificate: CertificateFacts) -> timedelta:
    return certificate.not_after - certificate.not_before - BACKDATED
