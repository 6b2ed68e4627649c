"""Every bound of albatrossd in one place, each with its reason; what the command line can change says so there.

Sizes are in octets and times in seconds unless the name says otherwise.
"""

MEBIBYTE = 1 << 20

# connections
MAX_FRAME = 256 * MEBIBYTE  # on vmmd.sock an image travels inside its command; MirageOS images are 5 to 70 MB
MAX_EXTENDED_FRAME = 128 * MEBIBYTE  # a command with an embedded image from a certificate, and the chain's policies
MAX_CONNECTIONS = 128  # at once per socket; further ones wait. A user who is nobody special has a quarter of them
IDLE_TIMEOUT = 60.0  # a connection that says nothing makes room for others
STREAM_IDLE_TIMEOUT = 30.0  # between two chunks of an upload; a stalled one holds its device busy
MAX_CHUNK = 16 * MEBIBYTE  # a frame of a block stream; clients write 4 to 64 KiB
MAX_DUMP_AT_ONCE = 64 * MEBIBYTE  # the old dump answers with one frame, made in memory

# images
MAX_IMAGE = 1024 * MEBIBYTE  # uncompressed; also bounded by the binding's size and by the memory asked for
COPY_PIECE = MEBIBYTE  # read, hashed and written at a time: memory does not grow with the image
INLINE_WORK = 256 * 1024  # below this, hashing and writing take less time than handing them to a thread
DISK_RESERVE = 64 * MEBIBYTE  # stays free on the state's file system, so that destroy and policies can be recorded
LOG_RESERVE = 8 * MEBIBYTE  # of the disk for the state's write-ahead log: some hundreds of destroys on a full disk
BALLAST = MEBIBYTE  # of the disk while albatrossd does not run, so that it can start on a full one
STATE_ROOM = 16 * MEBIBYTE  # below this, nothing new is recorded
HISTORY_DEPTH = 3  # previous deployments kept for rollback, per unikernel

# configurations
MAX_ARGUMENTS = 1024
MAX_COMMAND_LINE = 8191  # octets of a Solo5 guest's command line without its final NUL (Solo5 spt and hvt)
MAX_DEVICES = 63  # Solo5's manifest has 64 entries, the first is reserved
MAX_FILE_NAME = 255  # NAME_MAX: names become names of fifos and block devices

# processes
STOP_GRACE = 10.0  # from SIGTERM to SIGKILL; tenders end at once, a guest cannot notice SIGTERM
KILL_GRACE = 10.0  # from SIGKILL to giving up: only a process inside the kernel survives so long
COME_UP_GRACE = 1.0  # a successor that fails within it is replaced by its predecessor again
VERSION_TIMEOUT = 5.0  # for a tender's --version
VERSION_OUTPUT = 4096  # octets of it that are looked at
PROCESS_OVERHEAD = 32 * MEBIBYTE  # beside the guest's memory: a tender of Solo5 needs 2 to 6 MB and tables
PROCESS_TASKS = 64  # threads of a tender and of KVM; an spt unikernel has one and can make none

PARSED_IMAGES = 64  # remembered, by digest: up to a few dozen headers and devices each

GARBAGE_THRESHOLD = 10_000  # objects made and not freed before cycles are looked for; some MB at most
STARTED_AT_ONCE = 16  # at boot: as many share what is written, and nobody who asks waits for more

# restarts
FIRST_DELAY = 1.0  # before the second restart in a row; the first is immediate
LONGEST_DELAY = 60.0
STEADY_AFTER = 60.0  # a run that lasted so long ends a series of failures

# revocation
REVOKED_PATIENCE = 60.0  # for what is being changed below a revoked delegation; afterwards it is tried again
REVOKED_RETRY = 0.1

# companions
CONSOLE_TIMEOUT = 3.0  # for the console's answer to an announcement; then it counts as dead and output is drained
STATS_TIMEOUT = 3.0
RECONNECT_FIRST = 0.2
RECONNECT_LONGEST = 5.0
DRAIN_PIECE = 64 * 1024  # a pipe's usual capacity

# policies
MAX_OPERATOR_POLICIES = 100_000  # set on vmmd.sock; upstream's endpoint adds one for every delegation that it sees

# tables
MAX_UNIKERNELS = 100_000  # in the whole host, whatever the policies say
ENDED_KEPT = 256  # unikernels that ended for good and that status still tells about
