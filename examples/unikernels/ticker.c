/* ticker: prints a numbered line every second, or with --fast as fast as it can; with --lines=N it ends after N. */

#include "spt.h"

MANIFEST_NONE;

struct time { i64 seconds, nanoseconds; };

static void sleep_until(const struct boot *boot, const struct time *deadline)
{
    struct { struct time interval, value; } setting = { { 0, 0 }, { deadline->seconds, deadline->nanoseconds | 1 } };
    call(SYS_timerfd_settime, (u64) boot->timer, 1, (u64) &setting, 0, 0, 0);
    wait_for_event(boot);
}

static int unikernel(const struct boot *boot)
{
    static struct line line;
    struct time next;
    u64 lines = number_option(boot->command_line, "--lines=", ~0ul);
    int fast = option(boot->command_line, "--fast") != 0;

    call(SYS_clock_gettime, 1, (u64) &next, 0, 0, 0, 0);
    for (u64 tick = 1; tick <= lines; tick++) {
        add(&line, "tick ");
        add_number(&line, tick);
        print(&line);
        if (!fast && tick < lines) {
            next.seconds++;
            sleep_until(boot, &next);
        }
    }
    return 0;
}
