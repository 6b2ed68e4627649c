"""Signing requests: a key and one command, policy or set of constraints that a CA is asked to sign."""
