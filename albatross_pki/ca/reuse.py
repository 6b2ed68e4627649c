"""Keys and labels that were there before: what an older certificate would undo or somebody else would inherit.

1. A key that already has a certificate with other rights, another path or another role would keep them: refused,
   unless the older certificates are revoked in the same act. (Leaves of one key beside each other are fine: each is
   one command. So are server certificates.)
2. A label of a delegation that was ever issued to another key would give its unikernels and history to somebody else:
   refused while the other key's certificate is good, unless the label is to be *shared*, and afterwards, unless it is
   to be *reused*.
3. The key of the signer itself is never signed by it.

Labels are compared in lower case, as hosts see them. Pure; decided from the ledger alone.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from albatross_pki.ca.finding import shown_name
from albatross_pki.ca.issuer import Issuer
from albatross_pki.ca.ledger import Issued, LedgerView, Revoked, write_time
from albatross_pki.ca.plan import Plan
from albatross_pki.commands import PolicyAdd
from albatross_pki.errors import Refused
from albatross_pki.extensions import AlbatrossExtension
from albatross_pki.keys import spki_digest
from albatross_pki.names import Name
from albatross_pki.policy.roles import Role
from albatross_pki.wire.extension import encode_albatross_extension, encode_constraints

_SIDE_BY_SIDE = frozenset({Role.LEAF, Role.SERVER})  # roles of which one key may have several, different ones


@dataclass(frozen=True, slots=True)
class Allowances:
    """What the operator says about earlier certificates."""

    share_label: bool = False
    reuse_label: bool = False
    revoke_older: bool = False


def rights_digest(plan: Plan) -> str:
    """A digest over what a certificate allows; equal for two that allow the same (a renewal)."""
    content = hashlib.sha256()
    if plan.policy is not None and plan.command is not None:
        content.update(encode_albatross_extension(_delegated(plan)))
    if plan.constraints is not None and plan.role.is_authority:
        content.update(b"constraints" + encode_constraints(plan.constraints))
    content.update(f"path length {plan.path_length}".encode("ascii"))
    return content.hexdigest()


def _delegated(plan: Plan) -> AlbatrossExtension:
    if not isinstance(plan.command, PolicyAdd):
        raise RuntimeError("not a delegation")
    return AlbatrossExtension(plan.command)


def enforce_reuse(plan: Plan, issuer: Issuer, view: LedgerView, allowances: Allowances, now: datetime) -> list[Revoked]:
    """What is to be revoked in the same act; raises ``Refused`` with every reason."""
    key = spki_digest(plan.key).hex()
    issuer_key = issuer.certificate.spki_sha256.hex()
    if key == issuer_key:
        raise Refused(["the request is about the key that signs it"])
    reasons: list[str] = []
    hints: list[str] = []
    older = _differing(plan, view, key, now)
    if older and not allowances.revoke_older:
        reasons += [f"its key already has {_title(item)}, which would stay good" for item in older]
        hints.append("--revoke-older revokes it in the same act; or have a request made with a new key")
    if plan.role is Role.DELEGATION:
        holders = [
            item
            for item in view.issued_where("label", plan.label)
            if item.role == Role.DELEGATION.value and item.issuer == issuer_key and item.key != key
        ]
        current = [item for item in holders if view.is_current(item, now)]
        if current and not allowances.share_label:
            reasons.append(f"the label {plan.label} belongs to another key: {_title(current[0])}")
            hints.append("choose another label; --share-label has both use what is there")
        elif holders and not current and not (allowances.reuse_label or allowances.share_label):
            reasons.append(f"the label {plan.label} was issued to another key before: {_title(holders[-1])}")
            hints.append("choose another label; --reuse-label gives what is left of it to the new key")
    if reasons:
        raise Refused(reasons, hint="; ".join(hints))
    return [Revoked(item.serial, item.issuer, "superseded", write_time(now)) for item in older]


def _differing(plan: Plan, view: LedgerView, key: str, now: datetime) -> list[Issued]:
    """Good certificates of the same key that allow something else."""
    rights = rights_digest(plan)
    path = str(Name.of_path(plan.path))
    return [
        item
        for item in view.issued_where("key", key)
        if view.is_current(item, now)
        and not (plan.role in _SIDE_BY_SIDE and item.role == plan.role.value)
        and (item.role, item.path, item.rights) != (plan.role.value, path, rights)
    ]


def _title(item: Issued) -> str:
    return f"the {item.role} {shown_name(item)} (serial {item.serial}, until {item.not_after})"
