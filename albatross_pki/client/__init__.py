"""The programs that people use: commands over the local sockets and through TLS, answers as tables or JSON.

What is sent how, and what an answer means, is decided here; what is allowed is decided by ``policy`` and the host.
"""
