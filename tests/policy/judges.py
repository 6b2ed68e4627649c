"""Two more judges of chains, for the tests: OpenSSL and the verifier of ``cryptography``.

Both are asked about the path alone; what Albatross and we write into certificates they let pass, critical or not.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.x509 import verification
from OpenSSL import crypto
from OpenSSL._util import lib  # for the one setting that pyOpenSSL has no name for

from albatross_pki.extensions import COMMAND_OID, CONSTRAINTS_OID, IMAGE_BINDING_OID


def openssl_accepts(
    ders: Sequence[bytes], roots: Sequence[bytes], now: datetime, crls: Sequence[bytes] | None = None
) -> bool:
    """OpenSSL's verdict on a client's chain, leaf first, without X509_STRICT, which refuses upstream's roots.

    With ``crls`` it wants a valid list of every CA.
    """
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.IGNORE_CRITICAL)
    if crls is not None:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        for crl in crls:
            store.add_crl(x509.load_der_x509_crl(crl))
    store.set_time(now.replace(tzinfo=None))
    lib.X509_STORE_set_purpose(store._store, lib.X509_PURPOSE_SSL_CLIENT)
    try:
        certificates = [_openssl(der) for der in ders]
        for root in roots:
            store.add_cert(_openssl(root))
        crypto.X509StoreContext(store, certificates[0], certificates[1:]).verify_certificate()
    except (crypto.X509StoreContextError, crypto.Error):
        return False
    return True


def _openssl(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _extension(oid: str) -> Any:
    return type("Ours", (x509.ExtensionType,), {"oid": x509.ObjectIdentifier(oid)})


def _policy(*, authority: bool) -> verification.ExtensionPolicy:
    policy = verification.ExtensionPolicy.permit_all()
    if authority:
        policy = policy.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    for oid in (CONSTRAINTS_OID, IMAGE_BINDING_OID, COMMAND_OID):
        policy = policy.may_be_present(_extension(oid), verification.Criticality.AGNOSTIC, None)
    return policy


CA_POLICY, LEAF_POLICY = _policy(authority=True), _policy(authority=False)


def cryptography_accepts(ders: Sequence[bytes], roots: Sequence[bytes], now: datetime) -> bool:
    """The verdict of ``cryptography``'s verifier, which knows no Ed25519 keys."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        store = verification.Store([x509.load_der_x509_certificate(root) for root in roots])
        builder = verification.PolicyBuilder().store(store).time(now).max_chain_depth(9)
        builder = builder.extension_policies(ca_policy=CA_POLICY, ee_policy=LEAF_POLICY)
        builder.build_client_verifier().verify(certificates[0], certificates[1:])
    except (verification.VerificationError, ValueError):
        return False
    return True
