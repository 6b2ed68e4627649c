"""The finished certificate judged as a server would judge it, before anybody gets it.

1. A leaf, a delegation or a permission certificate goes through the endpoint's own fold (``policy.chain``), with the
   chain and the root that it will be presented with; a server certificate through the clients' judgement.
2. Where the root is not at hand (bundles are written without it), the top of the chain gets a *stand-in*: the same
   certificate, with the same key, below a root that is made for this judgement and thrown away. All that is not judged
   then is the root itself.
3. OpenSSL is asked too (``albatross_pki.ca.openssl``), if the caller wants a second judge.

Nothing here signs with the issuer's key.
"""

from dataclasses import replace
from datetime import datetime

from cryptography import x509

from albatross_pki.ca.certificate import make_certificate
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.plan import Plan
from albatross_pki.errors import Refused
from albatross_pki.keys import generate_key
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.chain import Judgement, JudgeOptions, Place, judge
from albatross_pki.policy.profiles import Extension, root_extensions
from albatross_pki.policy.roles import Dialect, Role


def judge_new(der: bytes, plan: Plan, issuer: Issuer, *, now: datetime, accept_plain: bool = False) -> Judgement:
    """The endpoint's judgement of a new client certificate below ``issuer``."""
    certificate = read_certificate(der)
    path, anchor = anchored((certificate, *issuer.chain), issuer.anchor)
    hosts = {host for link in path if link.constraints is not None for host in link.constraints.hosts or ()}
    options = JudgeOptions(
        hosts=frozenset(hosts),  # every host that is named at all: which one it will be is not known here
        accept_plain_intermediates=accept_plain,
        accept_unbound_images=True,  # whether such a leaf is signed at all was the operator's decision
    )
    return judge(path, anchor, now=now, options=options, end=Place.CA if plan.role.is_authority else Place.LEAF)


def check_new(der: bytes, plan: Plan, issuer: Issuer, *, now: datetime, accept_plain: bool = False) -> Judgement | None:
    """Raise ``Refused`` with every reason if a peer would refuse the new certificate.

    The judgement of a client certificate is returned; server certificates have none.
    """
    if plan.role is Role.SERVER:
        _check_server(der, plan, issuer, now)
        return None
    judgement = judge_new(der, plan, issuer, now=now, accept_plain=accept_plain)
    if not judgement.accepted:
        raise Refused(judgement.reasons, hint="nothing was signed: a server would refuse this certificate")
    return judgement


def _check_server(der: bytes, plan: Plan, issuer: Issuer, now: datetime) -> None:
    from albatross_pki.policy.server import judge_server

    certificate = read_certificate(der)
    path, anchor = anchored((certificate, *issuer.chain), issuer.anchor)
    found = {str(violation) for host in plan.host_names for violation in judge_server(path, anchor, host=host, now=now)}
    if found:
        raise Refused(sorted(found), hint="nothing was signed: clients would refuse this certificate")


def anchored(
    path: tuple[CertificateFacts, ...], anchor: CertificateFacts | None
) -> tuple[tuple[CertificateFacts, ...], CertificateFacts]:
    """``path`` and its root; without one, with a stand-in for its top below a root made for the purpose."""
    if anchor is not None:
        return path, anchor
    top = path[-1]
    key = generate_key()
    extensions = [Extension(extension.value, extension.critical) for extension in top.parsed.extensions]
    root = make_certificate(
        subject=top.parsed.issuer,
        issuer=top.parsed.issuer,
        key=key.public_key(),
        not_before=top.not_before,
        not_after=top.not_after,
        extensions=root_extensions(Dialect.UPSTREAM, key.public_key()),  # no key identifier that could disagree
        signer=key,
    )
    stand_in = make_certificate(
        subject=top.parsed.subject,
        issuer=top.parsed.issuer,
        key=_public_key(top.parsed),
        not_before=top.not_before,
        not_after=top.not_after,
        extensions=extensions,
        signer=key,
        serial=top.serial,
    )
    return (*path[:-1], replace(read_certificate(stand_in), digest=top.digest)), read_certificate(root)


def _public_key(certificate: x509.Certificate):  # type: ignore[no-untyped-def]
    return certificate.public_key()
