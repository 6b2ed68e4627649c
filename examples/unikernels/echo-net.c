/* echo-net: answers ARP requests for its address and ICMP echo requests (ping) to it, on its one interface.

   The address is the one in --ipv4=A.B.C.D (what follows, a prefix length say, is ignored), 10.0.0.2 without it.
   With --echo it sends every other unicast frame to its MAC address back to where it came from; with --answers=N it
   ends after N answers.

   Nothing that arrives is trusted: a frame is looked at only after its length was. */

#include "spt.h"

MANIFEST_NET("service");

enum { ETHERNET = 14, ARP = 28, IPV4 = 20, ICMP = 8 };

static u8 frame[65536 + ETHERNET];

static int same(const u8 *a, const u8 *b, int count)
{
    while (count-- > 0)
        if (a[count] != b[count])
            return 0;
    return 1;
}

static void copy(u8 *to, const u8 *from, int count)
{
    for (int i = 0; i < count; i++)
        ((volatile u8 *) to)[i] = from[i];
}

static int at(const u8 *octets)
{
    return octets[0] << 8 | octets[1];
}

static void turn_round(const u8 *mac)
{
    copy(frame, frame + 6, 6);
    copy(frame + 6, mac, 6);
}

/* Whether `length` octets of `frame` are an ARP request for `address`; if so they become the answer. */
static int answer_arp(i64 length, const u8 *mac, const u8 *address)
{
    static const u8 request[8] = { 0, 1, 8, 0, 6, 4, 0, 1 };
    u8 *arp = frame + ETHERNET;

    if (length < ETHERNET + ARP || !same(arp, request, 8) || !same(arp + 24, address, 4))
        return 0;
    turn_round(mac);
    arp[7] = 2;
    copy(arp + 18, arp + 8, 10);
    copy(arp + 8, mac, 6);
    copy(arp + 14, address, 4);
    return 1;
}

/* Whether `length` octets of `frame` are an echo request to `address`; if so they become the answer. */
static int answer_ping(i64 length, const u8 *mac, const u8 *address)
{
    u8 *ip = frame + ETHERNET, *icmp;
    int header, sum;

    if (length < ETHERNET + IPV4 + ICMP || ip[0] >> 4 != 4)
        return 0;
    header = (ip[0] & 15) * 4;
    icmp = ip + header;
    if (header < IPV4 || at(ip + 2) < header + ICMP || length < ETHERNET + at(ip + 2))
        return 0;
    if (ip[9] != 1 || !same(ip + 16, address, 4) || icmp[0] != 8 || icmp[1] != 0)
        return 0;
    turn_round(mac);
    copy(ip + 16, ip + 12, 4);
    copy(ip + 12, address, 4); /* swapping words leaves the sum of the header as it was */
    icmp[0] = 0;
    sum = at(icmp + 2) + 0x800; /* the type, worth 0x800 in the sum, is gone (RFC 1624) */
    sum = (sum & 0xffff) + (sum >> 16);
    icmp[2] = (u8) (sum >> 8);
    icmp[3] = (u8) sum;
    return 1;
}

static int answer(i64 length, const u8 *mac, const u8 *address, int echo)
{
    if (length < ETHERNET)
        return 0;
    if (at(frame + 12) == 0x0806)
        return answer_arp(length, mac, address);
    if (at(frame + 12) == 0x0800 && answer_ping(length, mac, address))
        return 1;
    if (!echo || !same(frame, mac, 6))
        return 0;
    turn_round(mac);
    return 1;
}

static void introduce(const struct entry *net, const u8 *address)
{
    static struct line line;

    add(&line, "echo-net: ");
    for (int i = 0; i < 4; i++) {
        add_number(&line, address[i]);
        add(&line, i < 3 ? "." : " is at ");
    }
    for (int i = 0; i < 6; i++) {
        add_hex(&line, net->is.net.mac[i]);
        add(&line, i < 5 ? ":" : ", MTU ");
    }
    add_number(&line, net->is.net.mtu);
    print(&line);
}

static int unikernel(const struct boot *boot)
{
    const struct entry *net = &boot->manifest->entry[1];
    const char *text = option(boot->command_line, "--ipv4=");
    u8 address[4] = { 10, 0, 0, 2 };
    int echo = option(boot->command_line, "--echo") != 0;
    u64 left = number_option(boot->command_line, "--answers=", ~0ul);

    for (int i = 0; text && i < 4; i++) {
        address[i] = (u8) number_at(text, &text);
        text += *text == '.';
    }
    introduce(net, address);
    while (left > 0) {
        i64 length = call(SYS_read, (u64) net->host.descriptor, (u64) frame, sizeof frame, 0, 0, 0);
        if (length < 0)
            wait_for_event(boot);
        else if (answer(length, net->is.net.mac, address, echo)) {
            call(SYS_write, (u64) net->host.descriptor, (u64) frame, (u64) length, 0, 0, 0);
            left--;
        }
    }
    return 0;
}
