"""Where our verdict is not the suite's, and why. ``docs/judgement.md`` has the rules that are named here."""

_KEY_IDS = "accepted: key identifiers help to find a path, and there is none to find; upstream's roots have none"
_DEPTH = "accepted: the length is bounded by nine certificates for everybody, it is not an option"
_CA_END = "refused: a CA certificate carries no command, so none stands at the end of a chain"
_LAST_MOMENT = "refused: the end of validity is the first moment that is not valid, as upstream and OpenSSL have it"
_ROOTS = "refused: a trusted root is self-signed; a delegation as root would hide the policies above it"

DIVERGENCES: dict[str, str] = {
    "cve::cve-2024-0567": f"{_ROOTS}; the shortest path goes to one that is not, and the cycle ends either way",
    "pathlen::validation-ignores-pathlen-in-leaf": _CA_END,
    "pathlen::self-issued-certs-pathlen": "refused: every CA counts against a path length, self-issued ones too",
    "pathlen::max-chain-depth-0-exhausted": _DEPTH,
    "pathlen::max-chain-depth-1-exhausted": _DEPTH,
    "rfc5280::aki::leaf-missing-aki": _KEY_IDS,
    "rfc5280::aki::intermediate-missing-aki": _KEY_IDS,
    "rfc5280::ski::root-missing-ski": _KEY_IDS,
    "rfc5280::ski::intermediate-missing-ski": _KEY_IDS,
    "rfc5280::validity::notafter-exact": _LAST_MOMENT,
    "rfc5280::validity::notafter-fractional": _LAST_MOMENT,
    "rfc5280::ca-as-leaf": _CA_END,
    "rfc5280::root-and-intermediate-swapped": _ROOTS,
}
