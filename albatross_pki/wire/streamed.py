"""What is streamed after an answer: statistics, lines of a console, pieces of a dump.

    Data        ::= CHOICE { statistics [1] StatsData, console [3] ConsoleData, block [4] BlockData }
    ConsoleData ::= SEQUENCE { timestamp GeneralizedTime, data Text }
    BlockData   ::= CHOICE { someData [0] OCTET STRING, noData [1] NULL }
    StatsData   ::= SEQUENCE { resourceUsage Rusage, ifdata SEQUENCE OF Ifdata,
                               vmmStats [0] SEQUENCE OF VmmStat OPTIONAL, kinfoMem [1] IMPLICIT KinfoMem OPTIONAL }
    VmmStat     ::= SEQUENCE { key Text, value Int64 }
    Timeval     ::= SEQUENCE { seconds Int64, microseconds Int }
    Rusage      ::= SEQUENCE { utime, stime Timeval, maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock,
                               outblock, msgsnd, msgrcv, nsignals, nvcsw, nivcsw Int64 }
    KinfoMem    ::= SEQUENCE { vsize, rss, tsize, dsize, ssize, runtime Int64, cow Int, start Timeval }
    Ifdata      ::= SEQUENCE { bridge Text, flags, sendLength, maxSendLength, sendDrops, mtu Int32,
                               baudrate, inputPackets, inputErrors, outputPackets, outputErrors, collisions,
                               inputBytes, outputBytes, inputMcast, outputMcast, inputDropped, outputDropped Int64 }

kinfoMem is the only implicit tag of the protocol.
"""

from albatross_pki.replies import (
    BlockChunk,
    ConsoleLine,
    Data,
    InterfaceStats,
    ProcessMemory,
    ResourceUsage,
    Statistics,
    Timeval,
)
from albatross_pki.wire import der
from albatross_pki.wire.composite import (
    Alternative,
    Choice,
    Explicit,
    ListOf,
    nothing,
    optional,
    pair,
    record,
    required,
    whole,
)
from albatross_pki.wire.primitives import LINE, NATURAL, OCTETS, SIGNED64, TEXT, TIME, UNSIGNED32, UNSIGNED64

_BLOCK_DATA = Choice[BlockChunk](
    Alternative(0, "someData", OCTETS, (True,), BlockChunk, lambda chunk: chunk.content),
    nothing(1, "noData", BlockChunk(None), False),
    key=lambda chunk: chunk.content is not None,
)

_TIMEVAL = record(Timeval, required("seconds", SIGNED64), required("microseconds", NATURAL))

_USAGE = record(
    ResourceUsage,
    required("utime", _TIMEVAL),
    required("stime", _TIMEVAL),
    *(
        required(name, UNSIGNED64)
        for name in ("maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "outblock")
    ),
    *(required(name, UNSIGNED64) for name in ("msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw")),
)

_MEMORY = record(
    ProcessMemory,
    *(required(name, UNSIGNED64) for name in ("vsize", "rss", "tsize", "dsize", "ssize", "runtime")),
    required("cow", NATURAL),
    required("start", _TIMEVAL),
    identifier=der.CONTEXT + 1,
)

_INTERFACE = record(
    InterfaceStats,
    required("name", TEXT),
    *(required(name, UNSIGNED32) for name in ("flags", "send_length", "max_send_length", "send_drops", "mtu")),
    *(
        required(name, UNSIGNED64)
        for name in ("baudrate", "input_packets", "input_errors", "output_packets", "output_errors", "collisions")
    ),
    *(
        required(name, UNSIGNED64)
        for name in ("input_bytes", "output_bytes", "input_mcast", "output_mcast", "input_dropped", "output_dropped")
    ),
)

_STATISTICS = record(
    Statistics,
    required("usage", _USAGE),
    required("interfaces", ListOf(_INTERFACE)),
    optional("vmm", Explicit(0, ListOf(pair(required("key", TEXT), required("value", UNSIGNED64))))),
    optional("memory", _MEMORY),
)

STREAMED = Choice[Data](
    whole(1, "statistics", _STATISTICS, Statistics),
    whole(3, "console", record(ConsoleLine, required("timestamp", TIME), required("line", LINE)), ConsoleLine),
    whole(4, "block", _BLOCK_DATA, BlockChunk),
    retired=(0, 2),
)
STREAMED_KEYS = (Statistics, ConsoleLine, BlockChunk)
