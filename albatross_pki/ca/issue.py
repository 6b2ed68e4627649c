"""Issuing: from a request to a certificate that is recorded and may be handed out.

In this order, and nothing is written before the last step: plan (validate, modify, enforce), keys and labels that were
there before, make the certificate, judge it as its peers would, record it in ledger and database.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.ledger import Issued, Ledger, Revoked, serial_text, write_time
from albatross_pki.ca.plan import Plan, Terms, make_plan
from albatross_pki.ca.reuse import Allowances, enforce_reuse, rights_digest
from albatross_pki.ca.selfcheck import SecondJudge
from albatross_pki.keys import spki_digest
from albatross_pki.names import Name
from albatross_pki.policy.judgement import Judgement

NO_ALLOWANCES = Allowances()


@dataclass(frozen=True, slots=True)
class Certified:
    """A new certificate: ``bundle`` is its DER and that of the chain above it, without the root.

    ``judgement`` is what the endpoint's fold said, ``None`` for server certificates.
    """

    plan: Plan
    bundle: tuple[bytes, ...] = field(repr=False)
    record: Issued
    judgement: Judgement | None = field(repr=False)
    revoked: tuple[Revoked, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.plan.notes, *(self.judgement.notes if self.judgement is not None else ()))


def issue(
    request: RequestFacts,
    issuer: Issuer,
    terms: Terms,
    ledger: Ledger,
    *,
    now: datetime,
    allowances: Allowances = NO_ALLOWANCES,
) -> Certified:
    """Sign ``request``: the certificate is recorded when this returns. Raises ``Refused`` with every reason."""
    plan = make_plan(request, issuer, terms, now)
    return issue_plan(
        plan, issuer, ledger, now=now, allowances=allowances, accept_plain=terms.accept_plain_intermediates
    )


def issue_plan(
    plan: Plan,
    issuer: Issuer,
    ledger: Ledger,
    *,
    now: datetime,
    allowances: Allowances = NO_ALLOWANCES,
    accept_plain: bool = False,
    second_judge: SecondJudge | None = None,
) -> Certified:
    """As ``issue``, from a plan that is already made."""
    revoked = enforce_reuse(plan, issuer, ledger.view, allowances, now)
    made = certify(plan, issuer, now=now, accept_plain=accept_plain, second_judge=second_judge)
    record = record_of(plan, issuer, made.bundle[0], made.serial, now)
    ledger.record_issued([record], revoked)
    return Certified(plan, made.bundle, record, made.judgement, tuple(revoked))


def record_of(plan: Plan, issuer: Issuer, der: bytes, serial: int, now: datetime) -> Issued:
    """The ledger's entry for a certificate."""
    return Issued(
        serial=serial_text(serial),
        issuer=issuer.certificate.spki_sha256.hex(),
        key=spki_digest(plan.key).hex(),
        role=plan.role.value,
        path=str(Name.of_path(plan.path)),
        label=plan.label,
        rights=rights_digest(plan),
        not_before=write_time(plan.not_before),
        not_after=write_time(plan.not_after),
        digest=hashlib.sha256(der).hexdigest(),
        word=plan.word,
        time=write_time(now),
    )
