"""The certification authority: keys, profiles, issuing with a self-check, ledger, revocation, CRLs."""
