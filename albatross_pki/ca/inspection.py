"""Any file of this world as a document: what it is and what it says, for people and for programs.

Certificates and bundles, signing requests, revocation lists, keys (only their kind) and state dumps of daemons, in PEM
or DER. Nothing is judged here (``verify`` does that): what is malformed is shown as such. Each document is a plain
dictionary, whose ``kind`` says what it is; ``lines`` turns it into text.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.ca.renewal import role_of
from albatross_pki.ca.words import command_words, constraints_words, image_words, moment, policy_words, settings_words
from albatross_pki.commands import UnikernelCreate
from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import AnyCommand, Constraints, ImageBinding
from albatross_pki.keys import accepted_public_key, describe_key, load_key
from albatross_pki.messages import StateDump
from albatross_pki.pem import CERTIFICATE, CRL, REQUEST, Block, armour, read_blocks
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.leaf_rules import command_of, embedded_image
from albatross_pki.policy.revocation import Crl, read_crl
from albatross_pki.text import printable
from albatross_pki.unikernels import UnikernelConfig
from albatross_pki.wire.configuration import deployment_digest
from albatross_pki.wire.state import decode_state_dump

Document = dict[str, Any]
_SHOWN_SERIALS = 1000


def inspect_file(octets: bytes, place: str) -> list[Document]:
    """One document for each thing in the file; raises ``AlbatrossError`` if nothing in it is known."""
    if b"-----BEGIN " not in octets:
        return [_inspect_der(octets, place)]
    return [_inspect_block(block, place) for block in read_blocks(octets, place)]


def _inspect_block(block: Block, place: str) -> Document:
    if block.label in (CERTIFICATE, "X509 CERTIFICATE"):
        return certificate_document(read_certificate(block.der))
    if block.label in (REQUEST, "NEW CERTIFICATE REQUEST"):
        return request_document(read_request(block.der, place))
    if block.label == CRL:
        return crl_document(read_crl(block.der))
    if block.label == "ENCRYPTED PRIVATE KEY":
        return {"kind": "private key", "encrypted": True}
    if block.label.endswith("PRIVATE KEY"):
        key = load_key(armour(block.label, block.der), place)
        return {"kind": "private key", "encrypted": False, "key": describe_key(key.public_key())}
    return {"kind": "unknown", "label": block.label}


def _inspect_der(octets: bytes, place: str) -> Document:
    readers: list[Callable[[], Document]] = [
        lambda: certificate_document(read_certificate(octets)),
        lambda: request_document(read_request(octets, place)),
        lambda: crl_document(read_crl(octets)),
        lambda: dump_document(decode_state_dump(octets)),
    ]
    for read in readers:
        try:
            return read()
        except AlbatrossError:
            continue
    raise AlbatrossError(f"{place}: neither PEM nor the DER of a certificate, request, revocation list or state dump")


def certificate_document(certificate: CertificateFacts) -> Document:
    """What a certificate says."""
    command = command_of(certificate)
    return {
        "kind": "certificate",
        "role": role_of(certificate).value,
        "subject": certificate.common_name,
        "issuer": _common_name(certificate),
        "serial": f"{certificate.serial:x}",
        "not_before": moment(certificate.not_before),
        "not_after": moment(certificate.not_after),
        "key": _key_words(certificate),
        "sha256": certificate.digest.hex(),
        "path_length": certificate.path_length,
        "hosts": [*certificate.dns_names, *(str(address) for address in certificate.ip_addresses)],
        **_rights(command, certificate.constraints, certificate.binding),
        "problems": _problems(certificate),
    }


def _problems(certificate: CertificateFacts) -> list[str]:
    duplicated = [f"the extension {certificate.duplicated} stands twice"] if certificate.duplicated else []
    unreadable = [certificate.unreadable] if certificate.unreadable else []
    key = [certificate.key_problem] if certificate.key_problem else []
    return [*certificate.malformed, *duplicated, *unreadable, *key]


def _key_words(certificate: CertificateFacts) -> str:
    if certificate.key_problem is not None:
        return certificate.key_problem
    return describe_key(accepted_public_key(certificate.parsed.public_key(), certificate.title))


def _common_name(certificate: CertificateFacts) -> str | None:
    names = [attribute for attribute in certificate.parsed.issuer if attribute.oid.dotted_string == "2.5.4.3"]
    return str(names[-1].value) if names else None


def request_document(request: RequestFacts) -> Document:
    """What a signing request asks for."""
    return {
        "kind": "signing request",
        "subject": request.label,
        "key": describe_key(request.public_key),
        "path_length": request.path_length,
        "hosts": list(request.host_names),
        **_rights(request.command, request.constraints, request.binding),
        "left out": list(request.ignored),
    }


def crl_document(crl: Crl) -> Document:
    """What a revocation list says; of a long one the first serials."""
    serials = sorted(crl.serials)
    names = [attribute for attribute in crl.parsed.issuer if attribute.oid.dotted_string == "2.5.4.3"]
    return {
        "kind": "revocation list",
        "issuer": str(names[-1].value) if names else None,
        "number": crl.number,
        "this_update": moment(crl.this_update),
        "next_update": moment(crl.next_update),
        "entries": len(serials),
        "revoked": [f"{serial:x}" for serial in serials[:_SHOWN_SERIALS]],
    }


def dump_document(dump: StateDump) -> Document:
    """What a daemon's state dump holds."""
    return {
        "kind": "state dump",
        "version": dump.version,
        "unikernels": {str(name): _config_lines(config) for name, config in dump.unikernels},
        "policies": {str(name): policy_words(policy) for name, policy in dump.policies},
    }


def _config_lines(config: UnikernelConfig) -> list[str]:
    return [image_words(config, None), *settings_words(config.settings)]


def _rights(
    command: AnyCommand | None, constraints: Constraints | None, binding: ImageBinding | None
) -> dict[str, Any]:
    rights: dict[str, Any] = {
        "allows": command_words(command, binding) if command is not None else [],
        "constraints": constraints_words(constraints) if constraints is not None else [],
    }
    if isinstance(command, UnikernelCreate):
        digest = binding.digest if binding is not None else _embedded_digest(command.config)
        if digest is not None:
            rights["image"] = digest.hex()
            rights["deployment"] = deployment_digest(command.config, digest).hex()
    return rights


def _embedded_digest(config: UnikernelConfig) -> bytes | None:
    if not config.image:
        return None
    if not config.compressed:
        return hashlib.sha256(config.image).digest()
    image = embedded_image(config)
    return None if image is None else image[0]


def lines(document: Document) -> Iterator[str]:
    """A document as text: its kind, then one line per thing said; everything escaped."""
    role = document.get("role")
    yield f"{document['kind']}" + (f" ({role})" if role else "")
    for name, value in document.items():
        if name in ("kind", "role") or value in (None, [], {}):
            continue
        title = name.replace("_", " ")
        if isinstance(value, list):
            yield f"  {title}"
            yield from (f"    {_text(item)}" for item in value)
        elif isinstance(value, dict):
            yield from _mapping_lines(title, value)
        else:
            yield f"  {title} {_text(value)}"


def _mapping_lines(title: str, mapping: dict[str, Any]) -> Iterator[str]:
    for key, value in mapping.items():
        said = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"  {title} {_text(key)}: {_text(said)}"


def _text(value: object) -> str:
    # words of ours are escaped already; a backslash of theirs is not doubled again
    text = str(value)
    return text if text.isprintable() else printable(text)
