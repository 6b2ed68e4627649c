"""Albatross, PKI first: what may run on a host stands in X.509 certificates.

The package's layers and who may import whom are described in ``docs/architecture.md``; a test enforces them.
"""

__version__ = "0.1.0"
PROTOCOL_VERSION = 5
