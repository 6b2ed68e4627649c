"""Every bound of the endpoint and the authoriser, with its reason. All can be set on the command line.

The endpoint's memory is at most, whatever its clients do: ``connections`` x about 150 kB (OpenSSL's state, a receive
buffer, and a certificate list of at most 100 KiB, which OpenSSL allocates as claimed) plus ``large_handshakes`` x about
three times ``certificate_octets`` (the claimed list, its parsed form, the copy for the authoriser). With the defaults
that is 256 x 0.15 + 4 x 12 = 86 MB for each worker above the 35 MB of the interpreter. A client whose chain was
accepted and that uploads takes another 1.2 MB for its buffers, whatever the size of the upload.
"""

from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class EndpointBounds:
    """Octets, seconds and counts, each for one worker process."""

    connections: int = 256  # open at once; more wait in the listen queue of the kernel
    connections_per_address: int = 32  # of one IPv4 address or IPv6 /64; more are told so and closed
    large_handshakes: int = 4  # certificates with an image inside, at once
    handshake_seconds: float = 10.0  # two round trips; a minute is only for ``large_handshake_seconds``
    large_handshake_seconds: float = 60.0  # 4 MiB at 70 kB/s
    certificate_octets: int = 4 * MEBIBYTE  # --max-certificate-size; streamed images need none of it
    idle_seconds: float = 60.0  # without an octet, while something is owed by the client
    judge_seconds: float = 30.0  # the authoriser's verdict
    answer_seconds: float = 330.0  # the first answer of a daemon; a destroy may wait for a grace period
    stream_octets: int = 512 * MEBIBYTE  # one spooled stream, whatever the certificate allows
    spool_octets: int = 2048 * MEBIBYTE  # all spooled streams together
    spool_reserve: int = 64 * MEBIBYTE  # stays free on the spool's file system
    stream_octets_per_second: int = 4096  # slower uploads are cut off after ``idle_seconds``
    drain_seconds: float = 5.0  # reading away what a refused client still sends
    drain_octets: int = 256 * MEBIBYTE
    frame_octets: int = 128 * MEBIBYTE  # one answer of a daemon; an image or a disk of old clients
    accept_queue: int = 128  # listen(2)


@dataclass(frozen=True)
class AuthoriserBounds:
    """Octets, seconds and counts of the authoriser."""

    sessions: int = 1024  # connections of endpoints; each is one session of a client
    idle_seconds: float = 3600.0  # between a verdict and the end of the upload it allows
    chain_octets: int = 64 * MEBIBYTE  # one request to judge
    daemon_seconds: float = 300.0  # a daemon's answer to the authoriser itself
    inline_octets: int = 64 * MEBIBYTE  # an image put into a message for a daemon that knows no descriptors
    crl_octets: int = MEBIBYTE  # one pushed list
    crl_entries: int = 10_000
    crl_octets_per_delegation: int = 8 * MEBIBYTE  # pushed below one top-level delegation
    issuer_octets_per_delegation: int = 8 * MEBIBYTE  # CA certificates kept below one top-level delegation
    replay_entries_per_issuer: int = 100_000  # one-time leaves that are still valid, of one CA key
    clock_back_seconds: float = 300.0  # how far the clock may go back behind the latest time seen
