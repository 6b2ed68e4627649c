"""Chains that revocation refuses (and their accepted twins)."""

from albatross_pki.policy.chain import JudgeOptions
from albatross_pki.policy.revocation import Revocations
from tests.pki_builder import HOUR, NOW, Authority, Issued
from tests.policy.cases import Presented, accepted, refused, shown


def lists(*entries: tuple[Authority, list[Issued]], expired: bool = False) -> Revocations:
    """The lists of some authorities, accepted."""
    view = Revocations()
    for authority, revoked in entries:
        crl = authority.read_crl(revoked, next_update=NOW - HOUR / 2 if expired else NOW + HOUR)
        view, reasons = view.accept(crl, authority.facts, NOW)
        assert not reasons
    return view


def judged(leaf: Issued, view: Revocations, *, require_crl: bool = False) -> Presented:
    return shown(leaf, options=JudgeOptions(revocations=view, require_crl=require_crl))


@refused("revoked", text='leaf "hello": revoked by "ca"')
def revoked_leaf_below_the_root() -> Presented:
    """The root revoked a leaf."""
    root = Authority.root()
    leaf = root.leaf()
    return judged(leaf, lists((root, [leaf])))


@refused("revoked", text='leaf "hello": revoked by "dev"')
def revoked_leaf() -> Presented:
    """Every CA can revoke what it issued."""
    dev = Authority.root().delegate("dev")
    leaf = dev.leaf()
    return judged(leaf, lists((dev, [leaf])))


@refused("revoked", text='delegation "dev": revoked by "ca"')
def revoked_delegation() -> Presented:
    """A revoked CA revokes all below it."""
    root = Authority.root()
    dev = root.delegate("dev")
    return judged(dev.delegate("sub").leaf(), lists((root, [dev])))


@refused("revoked", text='delegation "sub": revoked by "dev"')
def revoked_middle() -> Presented:
    """In the middle as well."""
    dev = Authority.root().delegate("dev")
    sub = dev.delegate("sub")
    return judged(sub.leaf(), lists((dev, [sub])))


@accepted()
def not_revoked() -> Presented:
    """A list with others on it."""
    root = Authority.root()
    dev = root.delegate("dev")
    return judged(dev.leaf(), lists((root, [root.delegate("dev")]), (dev, [])), require_crl=True)


@refused("revoked", text='revoked by "ca"')
def revoked_by_an_expired_list() -> Presented:
    """An expired list still revokes."""
    root = Authority.root()
    leaf = root.leaf()
    return judged(leaf, lists((root, [leaf]), expired=True))


@accepted()
def not_revoked_by_an_expired_list() -> Presented:
    """And does not close the host; it is told."""
    root = Authority.root()
    return judged(root.leaf(), lists((root, []), expired=True))


@refused("revoked", text="expired at")
def expired_list_where_one_is_required() -> Presented:
    """``--require-crl`` closes."""
    root = Authority.root()
    return judged(root.leaf(), lists((root, []), expired=True), require_crl=True)


@refused("revoked", text='there is no revocation list of "dev"')
def missing_list_where_one_is_required() -> Presented:
    """Also for a CA in the middle."""
    root = Authority.root()
    return judged(root.delegate("dev").leaf(), lists((root, [])), require_crl=True)


@refused("revoked", text='revoked by "dev"')
def list_of_a_namesake_changes_nothing() -> Presented:
    """A namesake with another key publishes an empty list with a higher number."""
    root = Authority.root()
    dev, namesake = root.delegate("dev"), root.delegate("dev")
    leaf = dev.leaf()
    view, reasons = lists((dev, [leaf])).accept(namesake.read_crl([], 99), namesake.facts, NOW)
    assert not reasons
    return judged(leaf, view)


@accepted()
def same_serial_of_another_issuer() -> Presented:
    """Serials are those of one key."""
    root = Authority.root()
    dev = root.delegate("dev")
    leaf = dev.leaf(serial=7)
    return judged(leaf, lists((root, [root.leaf(serial=7)]), (dev, [])))
