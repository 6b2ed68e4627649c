"""A new root: its certificate and how it begins its ledger; and renewing one.

The root is its own issuer, has no path length (each delegation below has one) and none of Albatross' extensions.
"""

import hashlib
from datetime import datetime, timedelta

from albatross_pki.ca.certificate import common_name, make_certificate, new_serial
from albatross_pki.ca.ledger import Issued, serial_text, write_time
from albatross_pki.ca.plan import BACKDATED
from albatross_pki.keys import PrivateKey, spki_digest
from albatross_pki.names import parse_label
from albatross_pki.policy.profiles import root_extensions
from albatross_pki.policy.roles import Dialect, Role


def make_root(name: str, key: PrivateKey, dialect: Dialect, lifetime: timedelta, now: datetime) -> tuple[bytes, Issued]:
    """The DER of a self-signed root called ``name`` and its ledger entry; raises ``InvalidName``.

    The name is kept as it is typed: it takes part in no path.
    """
    parse_label(name)
    serial = new_serial()
    not_before, not_after = now - BACKDATED, now + lifetime
    der = make_certificate(
        subject=common_name(name),
        issuer=common_name(name),
        key=key.public_key(),
        not_before=not_before,
        not_after=not_after,
        extensions=root_extensions(dialect, key.public_key()),
        signer=key,
        serial=serial,
    )
    digest = spki_digest(key.public_key()).hex()
    record = Issued(
        serial=serial_text(serial),
        issuer=digest,
        key=digest,
        role=Role.ROOT.value,
        path=":",
        label=name,
        rights="",
        not_before=write_time(not_before),
        not_after=write_time(not_after),
        digest=hashlib.sha256(der).hexdigest(),
        time=write_time(now),
    )
    return der, record
