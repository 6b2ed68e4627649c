"""Hash-chained logs: the ledger of a CA and the audit log of an authoriser have the same form."""
