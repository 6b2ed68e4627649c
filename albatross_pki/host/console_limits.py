"""Every bound of the console daemon in one place, each with its reason."""

from albatross_pki.host.ring import LONGEST_LINE, RING_LINES, SEGMENT_OVERHEAD

MEBIBYTE = 1 << 20

# memory, in octets
MAX_MEMORY = 64 * MEBIBYTE  # one half for rings, one for what waits for subscribers; --max-memory
SMALLEST_RING = 8192  # about a hundred short lines
LARGEST_RING = RING_LINES * (LONGEST_LINE + SEGMENT_OVERHEAD)  # no ring can use more
SMALLEST_BACKLOG = 32 * 1024
LARGEST_BACKLOG = 4 * MEBIBYTE  # a moment of a loud unikernel; more would only delay the news that lines are missing
BATCH_LINES = 512  # queued or missed together

# counts
MAX_SUBSCRIBERS = 5  # of one unikernel, Albatross' default; --max-subscribers
RINGS_PER_PATH = 16  # kept even where a path may have fewer unikernels: output of the dead outlives a policy
MAX_COUNT = 2**31 - 1  # lines asked for; a ring has at most 1024

# connections
READ_PIECE = 32 * 1024  # octets of one fifo in one turn; as many one-octet lines make 1.2 MB of frames
PIPE_PIECES = 64  # of these: larger than any pipe that an ordinary user may have (pipe(7))
FRAME_LIMIT = 64 * 1024  # octets; every command for the console is a name and a number
RESERVED_CONNECTIONS = 4  # never a subscriber's: albatrossd can always announce, people can always list
FIRST_COMMAND_TIMEOUT = 30.0  # seconds for a connection to say what it wants
SWEEP_SECONDS = 30.0  # between looks for fifos that were removed before anybody wrote to them
