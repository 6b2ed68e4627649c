"""Who signs: a CA certificate with the chain above it, its key, and its root where that is known.

Reading a signer decides, in this order:

1. the first certificate of the file is the one that signs, whatever depth it has (a bundle as signing wrote it);
2. the key belongs to that certificate, else it is refused, naming the certificate of the file that it does belong to;
3. the chain above it is found in the file by name and signature, up to a self-signed root, which is never handed on;
4. a root that is not in the file is looked for in the places given by the caller, and taken only if it really signed
   the top of the chain.

Judging the chain is not done here but for the new certificate together with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from albatross_pki.errors import AlbatrossError
from albatross_pki.keys import PrivateKey, PublicKey, spki_digest
from albatross_pki.names import Path, parse_label
from albatross_pki.policies import Policy
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.constraints import NO_CONSTRAINTS, EffectiveConstraints, intersect
from albatross_pki.policy.delegation_rules import is_permission, policy_of
from albatross_pki.policy.profiles import key_identifier

MAX_CHAIN = 16  # certificates in a signer's file; a path that the server takes has nine


class WrongKey(AlbatrossError):
    """A key that does not belong to the certificate that it was given with."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A signer. ``chain`` is leaf-most first and begins with the signer's own certificate; it has no root in it.

    If the signer is itself a root, ``chain`` is empty and ``anchor`` is its certificate. ``anchor`` is ``None`` for a
    chain whose root is not at hand.
    """

    certificate: CertificateFacts
    chain: tuple[CertificateFacts, ...]
    anchor: CertificateFacts | None
    key: PrivateKey = field(repr=False)

    @property
    def path(self) -> Path:
        """The path that the signer's certificates stand for."""
        return _path_of(self.chain)

    @property
    def policy(self) -> Policy | None:
        """The nearest policy at or above the signer; each one lies within those above it."""
        return next((found for found in map(policy_of, self.chain) if found is not None), None)

    @property
    def constraints(self) -> EffectiveConstraints:
        """What the chain's constraints leave to certificates below."""
        effective = NO_CONSTRAINTS
        for certificate in reversed(self.chain):
            if certificate.constraints is not None:
                effective = intersect(effective, certificate.constraints)
        return effective

    @property
    def is_permission(self) -> bool:
        """Whether the signer is a permission certificate: constraints without a policy."""
        return is_permission(self.certificate)

    @property
    def path_length_below(self) -> int | None:
        """How many CAs may stand below the signer; ``None`` for no limit. Every CA of the chain counts."""
        whole = self.chain if self.anchor is None or not self.chain else (*self.chain, self.anchor)
        limits = [
            certificate.path_length - above
            for above, certificate in enumerate(whole or (self.certificate,))
            if certificate.path_length is not None
        ]
        return min(limits, default=None)

    @property
    def not_before(self) -> datetime:
        return max(certificate.not_before for certificate in self._all)

    @property
    def not_after(self) -> datetime:
        """The earliest end of validity from the signer to the root, as far as it is known."""
        return min(certificate.not_after for certificate in self._all)

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key()

    @property
    def key_id(self) -> bytes:
        """What certificates below name as their authority's key identifier."""
        return self.certificate.subject_key_id or key_identifier(self.public_key)

    @property
    def _all(self) -> tuple[CertificateFacts, ...]:
        return (self.certificate, *self.chain, *(() if self.anchor is None else (self.anchor,)))


def assemble(ders: list[bytes], key: PrivateKey, place: str, roots: Iterable[bytes] = ()) -> Issuer:
    """The signer that a file's certificates and a key make; ``roots`` are the DER of possible anchors.

    Raises ``WrongKey``, ``BadCertificate`` and ``AlbatrossError`` naming ``place``.
    """
    if len(ders) > MAX_CHAIN:
        raise AlbatrossError(f"{place}: {len(ders)} certificates, more than {MAX_CHAIN}")
    certificates = [read_certificate(der) for der in ders]
    signer = certificates[0]
    _check_key(certificates, key, place)
    if not signer.is_ca:
        raise AlbatrossError(
            f"{place}: its first certificate {signer.title} is not a CA and cannot sign",
            hint="a bundle begins with the certificate that signs, then the one above it, and so on",
        )
    if is_self_signed(signer):
        return Issuer(signer, (), signer, key)
    chain, anchor = _climb(signer, certificates[1:])
    if anchor is None:
        candidates = (read_certificate(root) for root in roots)
        anchor = next((root for root in candidates if is_self_signed(root) and is_signed_by(chain[-1], root)), None)
    return Issuer(signer, tuple(chain), anchor, key)


def delegation_path(ders: list[bytes]) -> Path:
    """The path that a delegation's file stands for (DER, its own certificate first); no key is needed.

    Raises ``BadCertificate`` and ``InvalidName``.
    """
    signer, *others = [read_certificate(der) for der in ders[:MAX_CHAIN]]
    return Path() if is_self_signed(signer) else _path_of(_climb(signer, others)[0])


def _path_of(chain: Sequence[CertificateFacts]) -> Path:
    path = Path()
    for certificate in reversed(chain):
        if certificate.albatross is not None:
            path = path.child(parse_label(certificate.common_name or ""))
    return path


def _climb(
    signer: CertificateFacts, others: list[CertificateFacts]
) -> tuple[list[CertificateFacts], CertificateFacts | None]:
    chain = [signer]
    while True:
        above = next((other for other in others if is_signed_by(chain[-1], other)), None)
        if above is None:
            return chain, None
        if is_self_signed(above):
            return chain, above
        others = [other for other in others if other is not above]
        chain.append(above)


def _check_key(certificates: list[CertificateFacts], key: PrivateKey, place: str) -> None:
    digest = spki_digest(key.public_key())
    signer = certificates[0]
    if signer.key_problem is not None:
        raise WrongKey(f"{place}: certificate {signer.title}: {signer.key_problem}")
    if signer.spki_sha256 == digest:
        return
    for position, certificate in enumerate(certificates[1:], 2):
        if certificate.spki_sha256 == digest:
            raise WrongKey(
                f"{place}: the key belongs to certificate number {position}, {certificate.title}, "
                f"not to the first, {signer.title}",
                hint="put the certificate that signs first, and those above it behind it",
            )
    raise WrongKey(f"{place}: public key of certificate {signer.title} doesn't match private key")


def is_self_signed(certificate: CertificateFacts) -> bool:
    return certificate.self_issued and is_signed_by(certificate, certificate)


def is_signed_by(below: CertificateFacts, above: CertificateFacts) -> bool:
    """Whether the key of ``above`` signed ``below``, in its name."""
    if below.issuer != above.subject:
        return False
    try:
        below.parsed.verify_directly_issued_by(above.parsed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
