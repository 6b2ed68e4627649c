"""Fuzzing of everything that reads octets from a stranger; see docs/fuzzing.md."""
