"""Everything in which a request exceeds what its issuer's certificates leave, all at once.

1. a server stands below a root alone;
2. a policy is usable, lies within the nearest one above, and does not stand below a permission certificate;
3. a configuration fits the nearest policy; a command is one that a certificate may carry;
4. constraints lie within those in force above, and what is in force allows the command itself.

Pure. The fold that judges the finished certificate has the same rules (``policy``); asked here they come together with
everything else that is wrong with a request.
"""

from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issuer import Issuer
from albatross_pki.commands import PolicyAdd, UnikernelCreate
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import AnyCommand, Constraints
from albatross_pki.names import Name, parse_label
from albatross_pki.policy.constraints import (
    NO_CONSTRAINTS,
    WORDS_OUTSIDE_LEAVES,
    command_word,
    intersect,
    permits,
    within,
)
from albatross_pki.policy.leaf_rules import embedded_image
from albatross_pki.policy.roles import PATH_LABELS, Role
from albatross_pki.policy.rules import Violation, config_fits, shrinks, usable


def beyond_issuer(request: RequestFacts, issuer: Issuer, role: Role, command: AnyCommand | None) -> list[str]:
    """Everything in which the request exceeds its issuer."""
    if role is Role.SERVER:
        return ["a server certificate cannot stand below a delegation"] if issuer.chain else []
    found: list[Violation] = []
    wrong: list[str] = []
    if isinstance(command, PolicyAdd):
        found += usable(command.policy)
        found += shrinks(issuer.policy, command.policy) if issuer.policy is not None else []
        if issuer.is_permission:
            wrong.append(f"{issuer.certificate.title} is a permission certificate: no delegation can stand below it")
    elif isinstance(command, UnikernelCreate) and issuer.policy is not None:
        found += config_fits(issuer.policy, command.config.settings)
    elif command is not None and command_word(command) in WORDS_OUTSIDE_LEAVES:
        wrong.append(f"the command {command_word(command)} cannot be in a certificate")
    if request.constraints is not None:
        found += within(issuer.constraints, request.constraints)
    if role is Role.LEAF and command is not None:
        found += _permitted(request, issuer, command)
    return wrong + [violation.text for violation in found]


def _permitted(request: RequestFacts, issuer: Issuer, command: AnyCommand) -> list[Violation]:
    """What the constraints in force forbid about a leaf, on whichever of the hosts that they name."""
    in_force = intersect(issuer.constraints, request.constraints or NO_CONSTRAINTS)
    try:
        name = Name(issuer.path, None if request.label in PATH_LABELS else parse_label(request.label or ""))
    except AlbatrossError:
        return []  # that is refused already
    hosts = in_force.hosts or frozenset()
    return permits(in_force, name, command, hosts=hosts, image_digest=_image_digest(request, in_force, command))


def _image_digest(request: RequestFacts, in_force: Constraints, command: AnyCommand) -> bytes | None:
    """The digest of the image, as far as it is known and somebody asks for it."""
    if request.binding is not None:
        return request.binding.digest
    asked = in_force.images is not None or in_force.deployments is not None
    if not asked or not isinstance(command, UnikernelCreate) or not command.config.image:
        return None
    image = embedded_image(command.config)
    return None if image is None else image[0]
