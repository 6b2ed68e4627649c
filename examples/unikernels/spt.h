/* The spt interface of Solo5 (ABI version 2), as much of it as these examples need, for x86_64 and aarch64.

   A unikernel includes this file once, declares its devices with MANIFEST_NONE, MANIFEST_NET or MANIFEST_BLOCK, and
   defines `int unikernel(const struct boot *)`. There is no C library: what is not here does not exist. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

struct entry {
    char name[68];
    u32 kind;
    union {
        struct { u64 capacity; u16 sector; } block;
        struct { u8 mac[6]; u16 mtu; } net;
        u8 all[16];
    } is;
    union { int descriptor; u64 all; } host;
    u8 attached;
    u8 padding[7];
};

struct boot {
    u64 memory;
    u64 image_end;
    const char *command_line;
    const struct { u32 version, entries; struct entry entry[2]; } *manifest;
    int epoll;
    int timer;
};

enum { KIND_BLOCK = 1, KIND_NET = 2, KIND_FIRST = 0x40000000 };

/* notes ------------------------------------------------------------------------------------------------------ */

#define NOTE(section_name) __attribute__((section(section_name), aligned(4), used)) static const

NOTE(".note.solo5.abi") struct { u32 name_size, size, type; char name[8]; u32 target, version, reserved[2]; }
abi_note = { 6, 16, 0x31494241, "Solo5", 2, 2, { 0, 0 } };

#define MANIFEST(entries_, ...) \
    NOTE(".note.solo5.manifest") struct { \
        u32 name_size, size, type; char name[8]; u32 padding, version, entries; struct entry entry[entries_]; \
    } __attribute__((packed)) manifest_note = { \
        6, 12 + (entries_) * sizeof(struct entry), 0x3154464d, "Solo5", 0, 1, entries_, \
        { { .kind = KIND_FIRST } __VA_ARGS__ } }

#define MANIFEST_NONE MANIFEST(1, )
#define MANIFEST_NET(name_) MANIFEST(2, , { .name = name_, .kind = KIND_NET })
#define MANIFEST_BLOCK(name_) MANIFEST(2, , { .name = name_, .kind = KIND_BLOCK })

/* system calls ------------------------------------------------------------------------------------------------ */

#if defined(__x86_64__)
enum { SYS_read = 0, SYS_write = 1, SYS_pread64 = 17, SYS_pwrite64 = 18, SYS_clock_gettime = 228, SYS_exit_group = 231,
       SYS_epoll_pwait = 281, SYS_timerfd_settime = 286 };
struct event { u32 events; u64 key; } __attribute__((packed));

static i64 call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    i64 result;
    register u64 r10 __asm__("r10") = d;
    register u64 r8 __asm__("r8") = e;
    register u64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { SYS_epoll_pwait = 22, SYS_read = 63, SYS_write = 64, SYS_pread64 = 67, SYS_pwrite64 = 68,
       SYS_timerfd_settime = 86, SYS_exit_group = 94, SYS_clock_gettime = 113 };
struct event { u32 events; u32 padding; u64 key; };

static i64 call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 x8 __asm__("x8") = number;
    register u64 x0 __asm__("x0") = a;
    register u64 x1 __asm__("x1") = b;
    register u64 x2 __asm__("x2") = c;
    register u64 x3 __asm__("x3") = d;
    register u64 x4 __asm__("x4") = e;
    register u64 x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return (i64) x0;
}
#else
#error "neither x86_64 nor aarch64"
#endif

/* console ----------------------------------------------------------------------------------------------------- */

/* One line is written at once, as long as it fits: a console shows lines. */
struct line { u64 length; char text[1024]; };

static inline void add_char(struct line *line, char c)
{
    if (line->length < sizeof line->text)
        line->text[line->length++] = c;
}

static inline void add(struct line *line, const char *text)
{
    while (*text)
        add_char(line, *text++);
}

static inline void add_number(struct line *line, u64 number)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char) ('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        add_char(line, digits[--count]);
}

static inline void add_hex(struct line *line, u8 octet)
{
    add_char(line, "0123456789abcdef"[octet >> 4]);
    add_char(line, "0123456789abcdef"[octet & 15]);
}

static inline void print(struct line *line)
{
    if (line->length == sizeof line->text)
        line->length--;
    add_char(line, '\n');
    call(SYS_write, 1, (u64) line->text, line->length, 0, 0, 0);
    line->length = 0;
}

/* command line ------------------------------------------------------------------------------------------------ */

/* The text behind `prefix` of the first word that starts with it, 0 if there is none. */
static inline const char *option(const char *words, const char *prefix)
{
    while (*words) {
        const char *word = words, *expected = prefix;
        while (*expected && *word == *expected)
            word++, expected++;
        if (!*expected)
            return word;
        while (*words && *words != ' ')
            words++;
        while (*words == ' ')
            words++;
    }
    return 0;
}

/* The decimal number at `text`; `*end` is what follows. */
static inline u64 number_at(const char *text, const char **end)
{
    u64 number = 0;
    while (*text >= '0' && *text <= '9')
        number = number * 10 + (u64) (*text++ - '0');
    *end = text;
    return number;
}

static inline u64 number_option(const char *words, const char *prefix, u64 otherwise)
{
    const char *end, *text = option(words, prefix);
    return text ? number_at(text, &end) : otherwise;
}

/* waiting ------------------------------------------------------------------------------------------------------ */

/* Sleep until a network device has a frame, or the timer has expired if one is set. */
static inline void wait_for_event(const struct boot *boot)
{
    struct event events[2];
    call(SYS_epoll_pwait, (u64) boot->epoll, (u64) events, 2, (u64) -1, 0, 0);
}

__attribute__((noreturn)) static inline void wait_for_ever(const struct boot *boot)
{
    for (;;)
        wait_for_event(boot);
}

/* entry -------------------------------------------------------------------------------------------------------- */

static int unikernel(const struct boot *boot);

__attribute__((section(".text.start"), noreturn, used)) void start(const struct boot *boot)
{
    int status = unikernel(boot);
    for (;;)
        call(SYS_exit_group, (u64) status, 0, 0, 0, 0, 0);
}
