"""Making the planned certificate, and judging it as its peers would. Nothing is recorded or written here.

Signing records what comes out of this (``ca.issue``); one-shot clients, which have no ledger, use it as it is.
"""

from dataclasses import dataclass, field
from datetime import datetime

from albatross_pki.ca.certificate import common_name, make_certificate, new_serial
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.plan import Plan
from albatross_pki.ca.selfcheck import SecondJudge, check_new
from albatross_pki.policy.judgement import Judgement


@dataclass(frozen=True, slots=True)
class Made:
    """A new certificate: ``bundle`` is its DER and that of the chain above it, without the root.

    ``judgement`` is what the endpoint's fold said, ``None`` for server certificates.
    """

    bundle: tuple[bytes, ...] = field(repr=False)
    serial: int
    judgement: Judgement | None = field(repr=False)


def certify(
    plan: Plan,
    issuer: Issuer,
    *,
    now: datetime,
    accept_plain: bool = False,
    second_judge: SecondJudge | None = None,
) -> Made:
    """Make the planned certificate and judge it; raises ``Refused``. Records nothing."""
    serial = new_serial()
    der = make_certificate(
        subject=common_name(plan.label),
        issuer=issuer.certificate.parsed.subject,
        key=plan.key,
        not_before=plan.not_before,
        not_after=plan.not_after,
        extensions=plan.extensions(issuer.key_id),
        signer=issuer.key,
        serial=serial,
    )
    judgement = check_new(der, plan, issuer, now=now, accept_plain=accept_plain, second_judge=second_judge)
    bundle = (der, *(certificate.der for certificate in issuer.chain))
    return Made(bundle, serial, judgement)
