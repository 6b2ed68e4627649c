"""A command through the TLS endpoint of a host.

1. what goes with the command is read and judged: the image against its manifest's devices, and against the digest in
   the certificate; content against the size of its device;
2. credentials are made or read, and judged (``credentials``);
3. the server is judged before it gets our certificate (``transport.tls``);
4. image or content is streamed, while an answer that comes early is looked for;
5. the answers are followed. A connection that ends without an answer is an error.
"""

import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from albatross_pki.client.conversation import Answers, answers_of, converse
from albatross_pki.client.credentials import Credentials, Signer, label_of, one_shot, policy_of, read_roots
from albatross_pki.client.files import BadFile, WrongDevices, binding_of, judge_image, read_image
from albatross_pki.client.progress import Readable, answer_awaited, upload_meter
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import BlockAdd, BlockSet, UnikernelCreate, has_arguments
from albatross_pki.console_script import say
from albatross_pki.errors import AlbatrossError, Refused, system_error_text
from albatross_pki.extensions import AnyCommand, ImageBinding
from albatross_pki.files import read_file
from albatross_pki.messages import Message
from albatross_pki.names import Name
from albatross_pki.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from albatross_pki.client.local import OnData, OnSuccess
    from albatross_pki.policies import Policy
    from albatross_pki.policy.revocation import Crl
    from albatross_pki.transport.tls import TlsConnection
    from albatross_pki.unikernels import Settings

NOBODY = "-"  # in place of a host: what would be sent is shown
UPSTREAM_LEVEL = 9  # zlib level for an image inside a certificate, as Albatross' own client


@dataclass(frozen=True, slots=True)
class Server:
    """Whom to talk to, and how it is known: ``name`` in its certificate (default: the host), or a ``pin``.

    ``crls`` are files of revocation lists, of the root or of CAs between it and the server.
    """

    host: str
    port: int
    server_ca: str
    name: str | None = None
    pin: bytes | None = None
    crls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """What follows the handshake: ``source``, called ``what``, and its size in octets, if known."""

    what: str
    source: Readable
    octets: int | None


def send_one_shot(
    typed: TypedCommand, signer: Signer, server: Server, on_success: "OnSuccess", on_data: "OnData"
) -> None:
    """Sign what was typed with a delegation, send it and follow the answers."""
    label_of(typed.name)  # before anything is read
    if isinstance(typed.command, BlockAdd | BlockSet):
        from albatross_pki.client.local import check_content, content_source

        check_content(typed)
    command, binding, image = _with_image(typed, signer)
    credentials = one_shot(signer, typed.name, command, binding)
    if isinstance(command, BlockSet):
        with content_source(typed) as (source, size):
            _send(credentials, server, Upload(str(typed.content), source, size), on_success, on_data)
    else:
        upload = Upload(str(typed.image), io.BytesIO(image), len(image)) if image is not None else None
        _send(credentials, server, upload, on_success, on_data)
    if isinstance(command, BlockAdd) and typed.content is not None:
        # only reached if the block device was made by us: nothing that exists is ever overwritten
        content = replace(typed, command=BlockSet(compressed=bool(typed.level)))
        send_one_shot(content, signer, server, on_success, on_data)


def warn_of_arguments(commands: "Iterable[AnyCommand]", *, quiet: bool) -> None:
    """Say, once for all ``commands``, what becomes of arguments in certificates.

    TLS hides a certificate on its way, and nobody keeps this one; but it is read by more than the unikernel.
    """
    if not quiet and any(map(has_arguments, commands)):
        readers = "the host's endpoint and whoever may get the unikernel"
        say("warning", f"arguments stand in the certificate in the clear, for {readers}")


def judge_one_shot(typed: TypedCommand, signer: Signer) -> None:
    """Refuse what ``send_one_shot`` would refuse before it connects; nothing is sent."""
    from albatross_pki.client.local import check_content

    label_of(typed.name)
    check_content(typed)
    command, binding, _ = _with_image(typed, signer)
    one_shot(signer, typed.name, command, binding)


def send_signed(
    credentials: Credentials, server: Server, stream: str | None, on_success: "OnSuccess", on_data: "OnData"
) -> None:
    """Send a command that was signed before; ``stream`` names the file that goes with it, if one does."""
    if isinstance(credentials.command, UnikernelCreate) and not credentials.command.config.image:
        image = _signed_image(credentials, credentials.command, stream)
        _send(credentials, server, Upload(str(stream), io.BytesIO(image), len(image)), on_success, on_data)
    elif isinstance(credentials.command, BlockSet):
        if stream is None:
            raise AlbatrossError("this certificate sets the content of a block device", hint="add --stream FILE")
        from albatross_pki.client.local import content_source

        level = 9 if credentials.command.compressed else None
        with content_source(TypedCommand(Name(), credentials.command, content=stream, level=level)) as (source, size):
            _send(credentials, server, Upload(stream, source, size), on_success, on_data)
    elif stream is not None:
        raise AlbatrossError("this certificate's command takes no file", hint="leave --stream away")
    else:
        _send(credentials, server, None, on_success, on_data)


def read_lists(server: Server) -> "list[tuple[str, Crl]]":
    """The revocation lists that the server is judged by; raises ``AlbatrossError`` for a file that is none."""
    if not server.crls:
        return []
    from albatross_pki.policy.revocation import crl_file

    return [(place, crl_file(read_file(place), place)) for place in server.crls]


def judge_server_chain(server: Server, chain: list[bytes], lists: "Sequence[tuple[str, Crl]]" = ()) -> list[str]:
    """Everything that speaks against a server with this verified chain (DER, anchor last).

    A server without a name is known by its pin (``client.pins``); a person may be asked at first use. A list that has
    expired still revokes, and is told; so is one that cannot be used.
    """
    from albatross_pki.client.pins import ask, keep_pin, known_pin
    from albatross_pki.policy.certificates import BadCertificate, read_certificate
    from albatross_pki.policy.judgement import JudgeOptions
    from albatross_pki.policy.revocation import lists_in_force
    from albatross_pki.policy.server import judge_server, needs_pin

    try:
        *path, anchor = [read_certificate(der) for der in chain]
    except BadCertificate as error:
        return [error.message]
    pin = server.pin
    if pin is None and needs_pin(path):
        pin = known_pin(server.host, server.port)
    now = datetime.now(UTC)
    revocations, unused = lists_in_force(lists, (*path, anchor), now)
    expired = [f"{place} expired at {crl.next_update.isoformat()}" for place, crl in lists if crl.expired(now)]
    for text in (*unused, *expired):
        say("warning", text)
    options = JudgeOptions(revocations=revocations)
    violations = judge_server(path, anchor, host=server.name or server.host, now=now, pin=pin, options=options)
    if pin is None and [violation.field for violation in violations] == ["pin"]:
        digest = path[0].digest
        if ask(server.host, server.port, digest):
            try:
                keep_pin(server.host, server.port, digest)
            except (AlbatrossError, OSError) as error:  # it is the server all the same
                why = system_error_text(error) if isinstance(error, OSError) else error.message
                say("warning", f"the pin cannot be kept: {why}")
            return []
        return [violations[0].text, f"if its operator told you that it is {digest.hex()}, say --pin with that"]
    return [violation.text for violation in violations]


class _Answering:
    """The messages that a TLS connection brings."""

    def __init__(self, connection: "TlsConnection", patient: bool) -> None:
        self._connection, self._patient = connection, patient

    def receive(self) -> Message | None:
        from albatross_pki.wire.message import decode_message

        payload = self._connection.receive_frame(seconds=None) if self._patient else self._connection.receive_frame()
        return decode_message(payload) if payload else None


def _send(
    credentials: Credentials, server: Server, upload: Upload | None, on_success: "OnSuccess", on_data: "OnData"
) -> None:
    from albatross_pki.pem import bundle
    from albatross_pki.transport.tls import CertificateRefused, connect

    if server.host == NOBODY:
        from albatross_pki.client.unsent import show_chain

        show_chain(credentials.chain)
    answers = answers_of(credentials.command)
    lists = read_lists(server)
    try:
        with connect(
            server.host,
            server.port,
            bundle(list(credentials.chain)),
            credentials.key_pem,
            read_roots(server.server_ca),
            lambda chain: judge_server_chain(server, chain, lists),
        ) as connection:
            if upload is not None:
                with upload_meter(upload.what, upload.octets) as meter:
                    connection.send_stream(cast(BinaryIO, upload.source), progress=meter.add)
            incoming = _Answering(connection, patient=answers in (Answers.READ, Answers.TEXTS))
            with answer_awaited(upload is not None):
                converse(incoming, answers, on_success, on_data)
    except CertificateRefused as refused:
        raise refused.about(credentials.chain, datetime.now(UTC)) from refused


def _with_image(typed: TypedCommand, signer: Signer) -> tuple[AnyCommand, ImageBinding | None, bytes | None]:
    """The command to sign, its binding, and the image to stream.

    In the native dialect the image is left out of the certificate, which binds its digest; in upstream's it is in it.
    A BHyve configuration has no image, and the mark that ends an empty stream is sent for it.
    """
    command = typed.command
    if not isinstance(command, UnikernelCreate) or typed.image is None:
        return command, None, None
    try:
        image = read_image(typed.image, command.config, typed.digest)
    except WrongDevices as wrong:
        raise refusal_in_full(wrong, policy_of(signer), command.config.settings) from wrong
    if not image:
        return command, None, b""
    native = signer.dialect == "native"
    level = typed.level if typed.level is not None else 0 if native else UPSTREAM_LEVEL
    packed = image
    if level:
        from albatross_pki.wire.compression import compress

        packed = compress(image, level)
    config = replace(command.config, compressed=level > 0)
    if native:
        return replace(command, config=config), binding_of(image), packed
    return replace(command, config=replace(config, image=packed)), None, None


def refusal_in_full(wrong: WrongDevices, policy: "Policy | None", settings: "Settings") -> Refused:
    """``wrong``, with what the delegation's ``policy`` does not allow either, and the bridges that it does allow."""
    if policy is None:
        return wrong
    from albatross_pki.policy.rules import config_fits

    also = [violation.text for violation in config_fits(policy, settings)]
    bridges = ", ".join(printable(bridge) for bridge in sorted(policy.bridges)) or "none"
    hint = f"bridges allowed by your policy: {bridges}" if any("--net=" in reason for reason in wrong.reasons) else None
    return Refused([*wrong.reasons, *also], hint=hint)


def _signed_image(credentials: Credentials, command: UnikernelCreate, stream: str | None) -> bytes:
    """The image for a leaf that does not hold it, as it is to be streamed."""
    if stream is None:
        raise AlbatrossError("this certificate holds no image, it follows on the connection", hint="add --stream IMAGE")
    image = read_image(stream, command.config)
    if credentials.binding is not None and credentials.binding != binding_of(image):
        raise BadFile(
            stream,
            f"is not the image that was signed: SHA-256 {binding_of(image).digest.hex()}, "
            f"the certificate wants {credentials.binding.digest.hex()}",
        )
    judge_image(stream, image, command.config.settings)
    if command.config.compressed:
        from albatross_pki.wire.compression import compress

        return compress(image, UPSTREAM_LEVEL)
    return image
