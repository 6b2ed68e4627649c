/* block: reads a sector of its disk, counts up the number in its first eight octets, writes it back, says so.

   --sector=N takes another sector than the first; --wait stays there afterwards instead of ending with status 0.
   The status is 1 if reading fails, 2 if writing does. */

#include "spt.h"

MANIFEST_BLOCK("storage");

static u8 sector[32768] __attribute__((aligned(8)));

static int unikernel(const struct boot *boot)
{
    static struct line line;
    const struct entry *disk = &boot->manifest->entry[1];
    u64 size = disk->is.block.sector, number = number_option(boot->command_line, "--sector=", 0);
    u64 *counter = (u64 *) sector;

    add(&line, "block: ");
    add_number(&line, disk->is.block.capacity / size);
    add(&line, " sectors of ");
    add_number(&line, size);
    add(&line, " octets");
    print(&line);
    if (call(SYS_pread64, (u64) disk->host.descriptor, (u64) sector, size, number * size, 0, 0) != (i64) size)
        return 1;
    *counter += 1;
    if (call(SYS_pwrite64, (u64) disk->host.descriptor, (u64) sector, size, number * size, 0, 0) != (i64) size)
        return 2;
    add(&line, "block: sector ");
    add_number(&line, number);
    add(&line, " was changed ");
    add_number(&line, *counter);
    add(&line, " times");
    print(&line);
    if (option(boot->command_line, "--wait"))
        wait_for_ever(boot);
    return 0;
}
