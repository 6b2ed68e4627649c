"""What a signing request says, and making one (PKCS#10, RFC 2986).

1. ``Wanted`` is what is asked for: a label, and a command, a policy, constraints, host names, in any sensible mix;
2. ``subject_label`` decides the label from the name that a person typed: the path always comes from the certificates
   above, so a name with a path in it is refused with what to do instead;
3. ``make_request`` writes it down and signs it with the key that it is about.

Whether a CA will sign it is that CA's question.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from albatross_pki.commands import BlockAdd, PolicyAdd, PolicyRemove, StatsAdd, StatsRemove
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import AnyCommand, Constraints, ImageBinding
from albatross_pki.keys import PrivateKey, signature_hash
from albatross_pki.names import Name
from albatross_pki.policy.profiles import Extension, alternative_names, command_extensions

PATH_ITSELF = "."  # the common name of a request about the whole path of its issuer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for. ``label`` of ``None`` stands for the path of whoever signs it.

    ``path_length``: how many delegations may follow below the one asked for. ``host_names``: of a server.
    """

    label: str | None
    command: AnyCommand | None = None
    constraints: Constraints | None = None
    binding: ImageBinding | None = None
    path_length: int | None = None
    host_names: tuple[str, ...] = ()


def subject_label(name: Name, command: AnyCommand) -> str | None:
    """The one label that a request about ``name`` can carry; raises ``AlbatrossError`` for a name with a path."""
    labels = name.path.labels if name.label is None else (*name.path.labels, name.label)
    if len(labels) > 1:
        raise AlbatrossError(
            f"a request cannot name the path of {':'.join(labels)}: the path comes from the certificates above",
            hint=f"ask for '{labels[-1]}' and have the delegation for {':'.join(labels[:-1])} sign it",
        )
    if not labels and isinstance(command, PolicyAdd):
        raise AlbatrossError("a delegation needs a label", hint="delegation LABEL UNIKERNELS …")
    return labels[0] if labels else None


def refuse_what_no_leaf_carries(name: Name, command: AnyCommand, *, filled: bool) -> None:
    """Raise ``Refused`` with the command that works for what no certificate can say.

    ``filled``: whether content goes with the command.
    """
    if isinstance(command, PolicyRemove):
        raise Refused(
            ["a certificate cannot remove a policy: policies come from delegations, and from the host's operator"],
            hint=f"on the host: albatross-client-local remove-policy --path={name.path}",
        )
    if isinstance(command, StatsAdd | StatsRemove):
        raise Refused(
            ["a certificate cannot add or remove processes to collect statistics of"],
            hint="on the host: albatross-client-local stats-add or stats-remove",
        )
    if filled and isinstance(command, BlockAdd):
        raise Refused(
            ["a request holds one command, and --data takes two"],
            hint=f"ask for 'create-block' without --data, then for 'set-block {name.label} FILE'",
        )


def make_request(wanted: Wanted, key: PrivateKey) -> bytes:
    """The request as DER, signed by ``key``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.label or PATH_ITSELF)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in _requested(wanted):
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, signature_hash(key.public_key())).public_bytes(Encoding.DER)


def _requested(wanted: Wanted) -> list[Extension]:
    extensions = list(command_extensions(wanted.command, wanted.constraints, wanted.binding))
    if wanted.path_length is not None:
        extensions.append(Extension(x509.BasicConstraints(ca=True, path_length=wanted.path_length), critical=True))
    if wanted.host_names:
        extensions.append(Extension(alternative_names(wanted.host_names), critical=False))
    return extensions
