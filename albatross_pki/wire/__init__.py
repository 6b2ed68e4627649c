"""The formats: what stands in certificates, on sockets and in files, byte for byte; no input or output happens here.

``docs/wire.md`` describes every format. Import the module that is needed; this file imports none of them.
"""
