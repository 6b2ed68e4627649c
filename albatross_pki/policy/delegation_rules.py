"""What Albatross and we demand of the CA certificates between the root and a leaf: delegations and permissions.

Each function is one rule about one CA certificate below the root, in its standing (what the certificates above it
grant). In this order, after the rules of ``policy.path_rules``:

19. kind: a delegation (Albatross extension with a policy) or a permission certificate (constraints alone); a CA with
    neither only where the operator accepts it; no binding and no command of ours in a CA
20. nesting: no delegation below a permission certificate
21. label: the common name of a delegation is a label
22. policy: no more than the nearest policy above
23. constraints: no more than what is in force above

``standing_below`` then gives the standing of what the certificate issues. A permission certificate adds nothing to the
path; neither does an accepted plain CA.
"""

from collections.abc import Iterator
from dataclasses import replace

from albatross_pki.authorised import ChainPolicy
from albatross_pki.commands import PolicyAdd
from albatross_pki.errors import InvalidName
from albatross_pki.extensions import ALBATROSS_OID, COMMAND_OID, CONSTRAINTS_OID, IMAGE_BINDING_OID
from albatross_pki.names import parse_label
from albatross_pki.policies import Policy
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.constraints import command_word, intersect, within
from albatross_pki.policy.judgement import Link, Place, Rule, Standing
from albatross_pki.policy.rules import shrinks
from albatross_pki.text import printable


def policy_of(certificate: CertificateFacts) -> Policy | None:
    """The policy of a delegation; ``None`` for everything else."""
    extension = certificate.albatross
    return extension.command.policy if extension is not None and isinstance(extension.command, PolicyAdd) else None


def is_delegation(certificate: CertificateFacts) -> bool:
    """Whether a CA certificate stands for a path, also if what it says about it cannot be read."""
    return ALBATROSS_OID in certificate.present


def is_permission(certificate: CertificateFacts) -> bool:
    """Whether a CA certificate only narrows: constraints and no policy."""
    return CONSTRAINTS_OID in certificate.present and not is_delegation(certificate)


def kind(link: Link) -> Iterator[str]:
    """19. A CA certificate is a delegation or a permission certificate, and nothing else."""
    certificate = link.certificate
    if certificate.albatross is not None and policy_of(certificate) is None:
        yield f"the command {command_word(certificate.albatross.command)} in a CA certificate (only policy-add)"
    if IMAGE_BINDING_OID in certificate.present:
        yield "an image binding in a CA certificate"
    if COMMAND_OID in certificate.present:
        yield "a command extension in a CA certificate"
    plain = not is_delegation(certificate) and not is_permission(certificate)
    if plain and not link.options.accept_plain_intermediates:
        yield (
            "a CA certificate with neither a policy nor constraints "
            "(an operator who trusts it says --accept-plain-intermediates)"
        )


def nesting(link: Link) -> Iterator[str]:
    """20. No delegation stands below a permission certificate."""
    if link.standing.below_permission and is_delegation(link.certificate):
        yield "a delegation below a permission certificate, which may issue leaves and narrower permissions only"


def label(link: Link) -> Iterator[str]:
    """21. The common name of a delegation is a label."""
    if not is_delegation(link.certificate):
        return
    if link.certificate.common_name is None:
        yield "a delegation without a common name"
    elif label_of(link.certificate) is None:
        yield f'"{printable(link.certificate.common_name, 80)}" is no label (only [a-zA-Z0-9-.] allowed, 1 to 63 chars)'


def label_of(certificate: CertificateFacts) -> str | None:
    """The label of a delegation in lower case, ``.`` like any other; ``None`` if it has none."""
    try:
        return None if certificate.common_name is None else parse_label(certificate.common_name)
    except InvalidName:
        return None


def policy(link: Link) -> Iterator[str]:
    """22. The policy allows no more than the nearest policy above."""
    own = policy_of(link.certificate)
    if own is not None and link.standing.policies:
        yield from (violation.text for violation in shrinks(link.standing.policies[-1].policy, own))


def constraints(link: Link) -> Iterator[str]:
    """23. The constraints allow no more than those in force above."""
    if link.certificate.constraints is not None:
        yield from (violation.text for violation in within(link.standing.constraints, link.certificate.constraints))


_CA = (Place.CA,)

DELEGATION_RULES = (
    Rule("kind", "Albatross AV5, docs/judgement.md", kind, _CA, reads_extensions=True),
    Rule("nesting", "docs/judgement.md", nesting, _CA, reads_extensions=True),
    Rule("label", "Albatross AV5", label, _CA, reads_extensions=True),
    Rule("policy", "Albatross AV5", policy, _CA, reads_extensions=True),
    Rule(
        "constraints",
        "docs/judgement.md",
        constraints,
        (Place.CA, Place.LEAF),
        reads_extensions=True,
    ),
)


def standing_below(link: Link) -> Standing:
    """What stands above everything that this CA certificate issues; meaningless once a rule is broken, never wider."""
    certificate, above = link.certificate, link.standing
    below = replace(above, below_permission=above.below_permission or is_permission(certificate))
    if certificate.constraints is not None:
        below = replace(below, constraints=intersect(above.constraints, certificate.constraints))
    own, its_label = policy_of(certificate), label_of(certificate)
    if own is None or its_label is None:
        return below
    path = above.path.child(its_label)
    entry = ChainPolicy(path, own, certificate.id_below(link.issuer), certificate.not_before, certificate.not_after)
    return replace(below, path=path, policies=(*above.policies, entry))
