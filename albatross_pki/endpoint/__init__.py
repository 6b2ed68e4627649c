"""The two programs between strangers and the host: the TLS endpoint, and the authoriser that judges for it."""
