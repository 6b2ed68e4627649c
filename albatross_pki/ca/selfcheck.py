"""The finished certificate judged as a server would judge it, before anybody gets it.

1. A leaf, a delegation or a permission certificate goes through the endpoint's own fold (``policy.chain``), with the
   chain and the root that it will be presented with; a server certificate through the clients' judgement.
2. Where the root is not at hand (bundles are written without it), the top of the chain gets a *stand-in*: the same
   certificate, with the same key, below a root that is made for this judgement and thrown away. All that is not judged
   then is the root itself.
3. A second judge (``albatross_pki.ca.openssl``) is asked about the same path, if the caller has one.

Nothing here signs with the issuer's key.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from cryptography import x509

from albatross_pki.ca.certificate import make_certificate
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.plan import Plan
from albatross_pki.errors import Refused
from albatross_pki.keys import accepted_public_key, generate_key
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.chain import Judgement, JudgeOptions, Place, judge
from albatross_pki.policy.profiles import Extension, root_extensions
from albatross_pki.policy.roles import Dialect, Role

CertificatePath = tuple[CertificateFacts, ...]
# the path's DER, leaf first, the anchor's, and the time; what it says against them, if anything
SecondJudge = Callable[[Sequence[bytes], bytes, datetime], str | None]


def check_new(
    der: bytes,
    plan: Plan,
    issuer: Issuer,
    *,
    now: datetime,
    accept_plain: bool = False,
    second_judge: SecondJudge | None = None,
) -> Judgement | None:
    """Raise ``Refused`` with every reason if a peer would refuse the new certificate.

    The judgement of a client certificate is returned; server certificates have none.
    """
    path, anchor = anchored((read_certificate(der), *issuer.chain), issuer.anchor)
    judgement = None
    if plan.role is Role.SERVER:
        _check_server(path, anchor, plan, now)
    else:
        judgement = _judge_client(path, anchor, plan, now, accept_plain)
        if not judgement.accepted:
            raise Refused(judgement.reasons, hint="nothing was signed: a server would refuse this certificate")
    doubt = None if second_judge is None else second_judge([link.der for link in path], anchor.der, now)
    if doubt is not None:
        raise Refused([f"OpenSSL refuses the chain: {doubt}"], hint="nothing was signed")
    return judgement


def _judge_client(
    path: CertificatePath, anchor: CertificateFacts, plan: Plan, now: datetime, accept_plain: bool
) -> Judgement:
    hosts = {host for link in path if link.constraints is not None for host in link.constraints.hosts or ()}
    options = JudgeOptions(
        hosts=frozenset(hosts),  # every host that is named at all: which one it will be is not known here
        accept_plain_intermediates=accept_plain,
        accept_unbound_images=True,  # whether such a leaf is signed at all was the operator's decision
    )
    return judge(path, anchor, now=now, options=options, end=Place.CA if plan.role.is_authority else Place.LEAF)


def _check_server(path: CertificatePath, anchor: CertificateFacts, plan: Plan, now: datetime) -> None:
    from albatross_pki.policy.server import judge_server

    found = {violation.text for host in plan.host_names for violation in judge_server(path, anchor, host=host, now=now)}
    if found:
        raise Refused(sorted(found), hint="nothing was signed: clients would refuse this certificate")


def anchored(path: CertificatePath, anchor: CertificateFacts | None) -> tuple[CertificatePath, CertificateFacts]:
    """``path`` and its root; without one, with a stand-in for its top below a root made for the purpose."""
    if anchor is not None:
        return path, anchor
    top = path[-1]
    key = generate_key()
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
        key=accepted_public_key(top.parsed.public_key(), top.title),
        not_before=top.not_before,
        not_after=top.not_after,
        extensions=[
            Extension(extension.value, extension.critical)
            for extension in top.parsed.extensions
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier)  # names the real root's key
        ],
        signer=key,
        serial=top.serial,
    )
    return (*path[:-1], replace(read_certificate(stand_in), digest=top.digest)), read_certificate(root)
