"""What a request becomes when it is signed: validate, then modify, then enforce. Pure.

1. **validate**: the role that the operator named fits what the request holds; the label is one; the command may stand
   where it will stand; policy, configuration and constraints lie within those of the issuer;
2. **modify**: the newest encoding of the command, path length, validity clamped to the issuer's, ``once`` for leaves
   that change something;
3. **enforce**: nothing that the dialect cannot say, neither asked for nor inherited.

Everything that is wrong is reported at once. What was issued before is looked at in ``albatross_pki.ca.reuse``, and the
finished certificate is judged as the server would in ``albatross_pki.ca.selfcheck``: the checks here are for the
better words, those there are what counts.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from albatross_pki.ca.bounds import beyond_issuer
from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issuer import Issuer
from albatross_pki.commands import PolicyAdd, UnikernelCreate, UnikernelRestart, Version
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import AnyCommand, Constraints, ImageBinding
from albatross_pki.keys import PublicKey
from albatross_pki.names import Path, parse_label
from albatross_pki.policies import Policy
from albatross_pki.policy.constraints import (
    NO_CONSTRAINTS,
    command_word,
)
from albatross_pki.policy.leaf_rules import WORDS_FOR_ONE
from albatross_pki.policy.profiles import (
    Extensions,
    delegation_extensions,
    leaf_extensions,
    needs_native,
    server_extensions,
)
from albatross_pki.policy.roles import PATH_LABELS, Dialect, Role, is_host
from albatross_pki.text import printable

BACKDATED = timedelta(seconds=10)  # clocks differ a little; upstream does the same
DEFAULT_LIFETIME = {
    Role.ROOT: timedelta(days=3650),
    Role.DELEGATION: timedelta(days=365),
    Role.PERMISSION: timedelta(days=365),
    Role.SERVER: timedelta(days=365),
    Role.LEAF: timedelta(days=1),
}
ONE_SHOT_LIFETIME = timedelta(seconds=300)
WORTH_TELLING = 0.01  # of a lifetime: issuer and issued are often made in the same minute, with the same one
CHANGING_WORDS = frozenset(
    {
        *("create", "force-create", "restart", "restart-arguments", "destroy", "stop", "start", "rollback"),
        *("block-add", "block-remove", "block-set", "crl-update"),
    }
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator decides. ``role`` is never taken from a request.

    ``lifetime`` of ``None`` is the role's default, ``path_length`` of ``None`` what the request asks for, or 0.
    ``reusable`` leaves ``once`` out; ``unbound`` signs a streamed image that nothing binds.
    """

    role: Role
    dialect: Dialect = Dialect.NATIVE
    lifetime: timedelta | None = None
    path_length: int | None = None
    host_names: tuple[str, ...] = ()
    reusable: bool = False
    unbound: bool = False
    accept_plain_intermediates: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A certificate to be: everything but its serial and signature. ``label`` is its common name.

    ``path`` is where it stands: the delegation's own path, or the path that a leaf is in. ``notes`` are worth telling.
    """

    role: Role
    dialect: Dialect
    label: str
    path: Path
    key: PublicKey = field(repr=False)
    not_before: datetime
    not_after: datetime
    command: AnyCommand | None = None
    constraints: Constraints | None = None
    binding: ImageBinding | None = None
    path_length: int | None = None
    host_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def policy(self) -> Policy | None:
        return self.command.policy if isinstance(self.command, PolicyAdd) else None

    @property
    def is_about_path(self) -> bool:
        """Whether a leaf stands for the path itself and not for a name in it."""
        return self.role is Role.LEAF and self.label in PATH_LABELS

    @property
    def word(self) -> str:
        """The command's word; empty for certificates without one."""
        return "" if self.command is None else command_word(self.command)

    def extensions(self, issuer_key_id: bytes) -> Extensions:
        """The certificate's extensions in order."""
        if self.role is Role.SERVER:
            return server_extensions(self.dialect, self.key, issuer_key_id, self.host_names)
        if self.role.is_authority:
            return delegation_extensions(
                self.dialect, self.key, issuer_key_id, self.policy, self.constraints, self.path_length
            )
        if self.command is None:
            raise RuntimeError("a leaf without a command")
        return leaf_extensions(self.dialect, self.key, issuer_key_id, self.command, self.constraints, self.binding)


def make_plan(request: RequestFacts, issuer: Issuer, terms: Terms, now: datetime) -> Plan:
    """Decide what ``request`` becomes below ``issuer``; raises ``Refused`` with every reason and a hint."""
    role = _role(request, terms.role)
    command = _newest(request.command)
    label, wrong = _label(request, role, command)
    wrong += beyond_issuer(request, issuer, role, command)
    wrong += _addresses(request, terms, role)
    path_length, too_long = _path_length(request, issuer, terms, role)
    wrong += too_long
    constraints, notes = _constraints(request, issuer, terms, role, command)
    wrong += _said_by_dialect(issuer, terms, role, command, constraints, request.binding)
    if isinstance(command, UnikernelCreate) and not (command.config.image or request.binding or terms.unbound):
        wrong.append("the image is neither in the request nor bound by its digest (--unbound signs it all the same)")
    lifetime = terms.lifetime or DEFAULT_LIFETIME[role]
    not_after = min(now + lifetime, issuer.not_after)
    if not issuer.not_before <= now < issuer.not_after:
        wrong.append(f"{issuer.certificate.title} or a certificate above it is not valid now")
    if wrong:
        raise Refused(wrong, hint=_way_out(role, issuer))
    if now + lifetime - not_after > lifetime * WORTH_TELLING:
        notes.append(f"validity is cut to the issuer's: until {not_after:%Y-%m-%d %H:%M:%S} UTC")
    return Plan(
        role=role,
        dialect=terms.dialect,
        label=label,
        path=issuer.path.child(label) if role is Role.DELEGATION else issuer.path,
        key=request.public_key,
        not_before=max(now - BACKDATED, issuer.not_before),
        not_after=not_after,
        command=command,
        constraints=constraints,
        binding=request.binding,
        path_length=path_length,
        host_names=terms.host_names or request.host_names if role is Role.SERVER else (),
        notes=tuple(notes),
    )


def _way_out(role: Role, issuer: Issuer) -> str | None:
    """What to do where no request could become a CA below this signer."""
    room = issuer.path_length_below
    if not role.is_authority or issuer.is_permission or room is None or room >= 1:
        return None
    return f"have {issuer.certificate.title} signed again with --path-length 1 or more"


def _role(request: RequestFacts, wanted: Role) -> Role:
    """The role itself, if the request is for something of that kind (P17: the operator's word decides)."""
    asks_nothing = request.command is None and request.constraints is None
    if wanted in (Role.DELEGATION, Role.PERMISSION):
        if isinstance(request.command, PolicyAdd):
            return Role.DELEGATION
        if request.command is None and request.constraints is not None:
            return Role.PERMISSION
        what = "nothing" if asks_nothing else f"the command {command_word(_present(request.command))}"
        raise Refused(
            [f"the request holds {what}, and neither a policy nor constraints: it cannot become a delegation"],
            hint="--as server" if asks_nothing else "--as leaf",
        )
    if wanted is Role.LEAF:
        if isinstance(request.command, PolicyAdd) or (request.command is None and request.constraints is not None):
            raise Refused(["the request is for a delegation, which a leaf cannot hold"], hint="--as delegation")
        if request.command is None:
            raise Refused(["the request holds no command: it cannot become a leaf"], hint="--as server")
        return wanted
    if wanted is Role.SERVER:
        if not asks_nothing or request.binding is not None:
            kind = "delegation" if request.command is None or isinstance(request.command, PolicyAdd) else "leaf"
            raise Refused(["the request holds rights, which a server certificate has none of"], hint=f"--as {kind}")
        return wanted
    raise TypeError(f"{wanted} is not signed on request")


def _present(command: AnyCommand | None) -> AnyCommand:
    if command is None:
        raise RuntimeError("no command")
    return command


def _newest(command: AnyCommand | None) -> AnyCommand | None:
    """The command in its current encoding, where there is one with the same meaning."""
    if isinstance(command, UnikernelCreate | UnikernelRestart):
        return replace(command, version=Version.CURRENT)
    return command


def _label(request: RequestFacts, role: Role, command: AnyCommand | None) -> tuple[str, list[str]]:
    """The common name of the certificate, a valid label or ``.``, and what is wrong with the one asked for."""
    if role is Role.LEAF and command is not None and request.label in PATH_LABELS:
        word = command_word(command)
        wrong = [f"{word} is about one name, and the request has none"] if word in WORDS_FOR_ONE else []
        return request.label or ".", wrong
    if role is Role.SERVER and request.label is not None and 0 < len(request.label) <= 64:
        try:
            return parse_label(request.label), []
        except AlbatrossError:
            return ".", [f"'{printable(request.label)}' is not a name that a file can have: a label is wanted"]
    try:
        return parse_label(request.label or ""), []
    except AlbatrossError as error:
        return ".", [f"the common name '{printable(request.label or '')}' of the request: {error.message}"]


def _addresses(request: RequestFacts, terms: Terms, role: Role) -> list[str]:
    """A native server certificate has names or addresses in it, and nothing else has them."""
    if role is not Role.SERVER:
        return ["host names are for server certificates alone"] if terms.host_names else []
    names = terms.host_names or request.host_names
    if terms.dialect is Dialect.NATIVE and not names:
        return ["a server certificate needs the names or addresses that clients use (--server-name HOST)"]
    return [f"'{printable(name, 64)}' is neither a host's name nor an address" for name in names if not is_host(name)]


def _path_length(request: RequestFacts, issuer: Issuer, terms: Terms, role: Role) -> tuple[int | None, list[str]]:
    """How many CAs may stand below the new one."""
    if not role.is_authority:
        return None, ["a path length is for delegations alone"] if terms.path_length is not None else []
    room = issuer.path_length_below
    if room is not None and room < 1:
        return 0, [f"{issuer.certificate.title} may not sign delegations: its path length is used up"]
    if terms.dialect is Dialect.UPSTREAM:
        return None, []
    asked = terms.path_length if terms.path_length is not None else (request.path_length or 0)
    if asked < 0 or (room is not None and asked > room - 1):
        most = "any" if room is None else f"at most {room - 1}"
        return 0, [f"a path length of {asked} is asked for, and {issuer.certificate.title} can give {most}"]
    if role is Role.PERMISSION and asked > 0:
        return 0, ["a permission certificate issues leaves alone: its path length is 0"]
    return asked, []


def _constraints(
    request: RequestFacts, issuer: Issuer, terms: Terms, role: Role, command: AnyCommand | None
) -> tuple[Constraints | None, list[str]]:
    """The constraints of the new certificate: as asked for, and ``once`` for a leaf that changes something."""
    asked = request.constraints
    if role is not Role.LEAF or command is None or command_word(command) not in CHANGING_WORDS:
        return asked, []
    if terms.dialect is Dialect.UPSTREAM:
        return asked, []
    if terms.reusable:
        inherited = issuer.constraints.once or (asked is not None and asked.once)
        note = "--reusable has no effect: the certificates above, or the request, say once"
        return asked, [note] if inherited else []
    return replace(asked or NO_CONSTRAINTS, once=True), []


def _said_by_dialect(
    issuer: Issuer,
    terms: Terms,
    role: Role,
    command: AnyCommand | None,
    constraints: Constraints | None,
    binding: ImageBinding | None,
) -> list[str]:
    if terms.dialect is Dialect.NATIVE or role is Role.SERVER:
        return []
    reasons = needs_native(command, constraints, binding)
    if any(certificate.constraints is not None for certificate in issuer.chain):
        reasons.append("the issuer's constraints cannot be passed on in the upstream dialect")
    return reasons
