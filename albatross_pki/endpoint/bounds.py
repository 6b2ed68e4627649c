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
    crowded_seconds: float = 1.0  # while all places are taken, a handshake that is older makes room for a newcomer
    large_handshakes: int = 4  # certificates with an image inside, at once
    large_handshakes_per_address: int = 1
    handshake_seconds: float = 10.0  # two round trips; a minute is only for ``large_handshake_seconds``
    large_handshake_seconds: float = 60.0  # 4 MiB at 70 kB/s
    certificate_octets: int = 4 * MEBIBYTE  # --max-certificate-size; streamed images need none of it
    idle_seconds: float = 60.0  # without an octet, while something is owed by the client
    judge_seconds: float = 30.0  # the authoriser's verdict
    answer_seconds: float = 330.0  # the first answer of a daemon; a destroy may wait for a grace period
    stream_octets: int = 512 * MEBIBYTE  # one spooled stream, whatever its certificate allows; one chunk of any
    spool_octets: int = 2048 * MEBIBYTE  # all spooled streams together
    spool_octets_per_path: int = 1024 * MEBIBYTE  # those of one top-level delegation, which cannot fill it for others
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
    sessions_per_path: int = 64  # under way, of one top-level delegation; a path below one may have half, as below
    dumps: int = 16  # of disks and images under way; each keeps a disk and the line busy
    dumps_per_path: int = 4
    dumps_per_address: int = 4  # of one IPv4 address or IPv6 /64, as the endpoint names it
    changes: int = 2400  # changing commands at once, after a quiet while: each is written to disk several times
    changes_per_minute: int = 240  # and in the long run
    changes_per_path: int = 300  # a fleet that is deployed anew at once
    changes_per_path_per_minute: int = 30  # 80 MB a day in the audit log
    changes_per_address: int = 600
    changes_per_address_per_minute: int = 60
    request_octets: int = 96 * MEBIBYTE  # requests and images in memory, of all together; each is there several times
    idle_seconds: float = 3600.0  # between a verdict and the end of the upload it allows
    chain_octets: int = 24 * MEBIBYTE  # one request to judge; more than endpoints with certificates of 16 MB send
    daemon_seconds: float = 300.0  # a daemon's answer to the authoriser itself
    inline_octets: int = 64 * MEBIBYTE  # an image put into a message for a daemon that knows no descriptors
    crl_octets: int = MEBIBYTE  # one pushed list
    crl_entries: int = 10_000
    crl_octets_per_delegation: int = 8 * MEBIBYTE  # pushed below one top-level delegation
    issuer_octets_per_delegation: int = 8 * MEBIBYTE  # CA certificates kept below one top-level delegation
    replay_entries_per_path: int = 100_000  # one-time leaves that are still valid, of one top-level delegation
    clock_back_seconds: float = 300.0  # how far the clock may go back behind the latest time seen
    audit_octets_per_path: int = 4 * MEBIBYTE  # reads and refusals listed at once: some 3000; more are counted
    audit_octets_per_path_per_minute: int = 64 * 1024  # and in the long run: 92 MB a day
    audit_refused_octets: int = 16 * MEBIBYTE  # refusals of all paths together, which a taken-over endpoint makes up
    audit_refused_octets_per_minute: int = 256 * 1024
    audit_reserve: int = 64 * MEBIBYTE  # free on the log's disk: below that only changes are listed
    audit_reserve_per_path: int = MEBIBYTE  # of that, for the changes of one top-level delegation: some 500
