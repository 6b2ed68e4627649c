"""The client's judgement of a server, made before anything about the client is sent.

What is decided here, all violations collected:

1. the rules of ``policy.path_rules`` for every certificate, from the root down, for the purpose serverAuth;
2. the server's own certificate says serverAuth in its extended key usage;
3. neither it nor any certificate above carries the Albatross extension or one of ours: nobody below a delegation or a
   permission certificate can pose as a server;
4. its subject alternative names include the host that was dialled, a DNS name (RFC 6125 6.4, wildcards refused) or an
   address; or it has no names at all, stands directly below the root, and its SHA-256 is the one pinned for this
   host and port.

Where pins are kept, and who is asked at first use, is the caller's affair (``needs_pin``).
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime

from albatross_pki.extensions import ALBATROSS_OID
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.chain import DEFAULT_OPTIONS, MOST_CERTIFICATES, links, title_of
from albatross_pki.policy.judgement import JudgeOptions, Purpose, apply
from albatross_pki.policy.path_rules import OURS, PATH_RULES
from albatross_pki.policy.rules import Violation, comma_list
from albatross_pki.text import printable


def has_names(server: CertificateFacts) -> bool:
    """Whether a server's certificate says which hosts it is for."""
    return bool(server.dns_names or server.ip_addresses)


def needs_pin(path: Sequence[CertificateFacts]) -> bool:
    """Whether this server can be known by a pin alone: one certificate without names, directly below the root."""
    return len(path) == 1 and not has_names(path[0])


def judge_server(
    path: Sequence[CertificateFacts],
    anchor: CertificateFacts,
    *,
    host: str,
    now: datetime,
    pin: bytes | None = None,
    options: JudgeOptions = DEFAULT_OPTIONS,
) -> list[Violation]:
    """Every reason not to talk to this server; none if it is who it should be.

    ``path`` is the server's certificate first, without the anchor; ``host`` is what was dialled; ``pin`` the SHA-256
    of the certificate's DER that is kept for this host and port.
    """
    if not path or len(path) > MOST_CERTIFICATES:
        text = f"the server's certificate chain has {len(path)} certificates (1 to {MOST_CERTIFICATES})"
        return [Violation("chain", MOST_CERTIFICATES, len(path), text)]
    found = []
    for link in links(path, anchor, now=now, options=options, purpose=Purpose.SERVER):
        title = title_of(link) if link.index else f"server certificate {link.certificate.title}"
        failed = [result for result in apply(PATH_RULES, link, title) if not result.ok]
        found += [Violation(result.rule, None, None, result.sentence) for result in failed]
        if (OURS | {ALBATROSS_OID}) & link.certificate.present:
            text = f"{title}: belongs to a delegation or permission, and nobody below one is a server"
            found.append(Violation("role", None, None, text))
    if path[0].extended_key_usage is None:
        text = f"server certificate {path[0].title}: the extended key usage does not include serverAuth"
        found.append(Violation("purpose", Purpose.SERVER.value, None, text))
    return found + _host_violations(path, host, pin)


def _host_violations(path: Sequence[CertificateFacts], host: str, pin: bytes | None) -> list[Violation]:
    server = path[0]
    if has_names(server):
        if matches_host(server, host):
            return []
        names = comma_list((*server.dns_names, *server.ip_addresses))
        text = f"server certificate {server.title}: is for {names} and not for {printable(host)}"
        return [Violation("host", names, host, text)]
    if not needs_pin(path):
        text = f"server certificate {server.title}: has no names, and is not directly below the root"
        return [Violation("host", None, host, text)]
    if pin is None:
        text = f"server certificate {server.title}: has no names, and none is pinned for {printable(host)}"
        return [Violation("pin", None, server.digest, text)]
    if pin != server.digest:
        text = (
            f"server certificate {server.title}: is {server.digest.hex()} "
            f"and not the one pinned for {printable(host)}, {pin.hex()}"
        )
        return [Violation("pin", pin, server.digest, text)]
    return []


def matches_host(server: CertificateFacts, host: str) -> bool:
    """Whether a certificate is for ``host``: an address equals one of its addresses, a name one of its names."""
    try:
        return ipaddress.ip_address(host) in server.ip_addresses
    except ValueError:
        dialled = host.lower().removesuffix(".")
        return any(name.lower() == dialled for name in server.dns_names)
