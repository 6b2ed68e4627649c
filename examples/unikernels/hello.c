/* hello: prints its command line, then waits; with --exit=N it ends with status N instead. */

#include "spt.h"

MANIFEST_NONE;

static int unikernel(const struct boot *boot)
{
    static struct line line;
    const char *status, *end;

    add(&line, "hello, the command line is: ");
    add(&line, boot->command_line);
    print(&line);
    status = option(boot->command_line, "--exit=");
    if (!status)
        wait_for_ever(boot);
    return (int) number_at(status, &end);
}
