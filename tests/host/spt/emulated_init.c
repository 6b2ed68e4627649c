/* The first process of an emulated machine: runs every executable in /run, in order of their names, and writes how each
   ended to the console. One whose name ends in ".disk" gets a disk of 1 MiB as descriptor 3. One whose name ends in ".net"
   gets a tap there and a hundred pings; the number of right answers is written. See test_aarch64. */

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ip_icmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void place(int from, int to)
{
    if (from < 0 || dup2(from, to) < 0)
        _exit(99);
    if (from != to)
        close(from);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* A tap with the address 10.0.0.1, as descriptor 3. */
static void tap(void)
{
    struct ifreq request = { .ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI };
    struct sockaddr_in address = { .sin_family = AF_INET };
    int module = open("/tun.ko", O_RDONLY), any;

    if (module >= 0) {
        syscall(SYS_finit_module, module, "", 0);
        close(module);
    }
    place(open("/dev/net/tun", O_RDWR | O_NONBLOCK), 3);
    if (ioctl(3, TUNSETIFF, &request) < 0)
        fail("TUNSETIFF");
    any = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, "10.0.0.1", &address.sin_addr);
    memcpy(&request.ifr_addr, &address, sizeof address);
    if (ioctl(any, SIOCSIFADDR, &request) < 0)
        fail("SIOCSIFADDR");
    inet_pton(AF_INET, "255.255.255.0", &address.sin_addr);
    memcpy(&request.ifr_netmask, &address, sizeof address);
    if (ioctl(any, SIOCSIFNETMASK, &request) < 0)
        fail("SIOCSIFNETMASK");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(any, SIOCSIFFLAGS, &request) < 0)
        fail("SIOCSIFFLAGS");
    close(any);
}

/* How many of a hundred echo requests get their answer. */
static int pings(void)
{
    struct timeval patience = { .tv_sec = 5 };
    struct sockaddr_in address = { .sin_family = AF_INET };
    int icmp = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), answers = 0;

    inet_pton(AF_INET, "10.0.0.2", &address.sin_addr);
    setsockopt(icmp, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int number = 0; number < 100; number++) {
        struct icmphdr request = { .type = ICMP_ECHO, .un.echo.sequence = htons(number) };
        char answer[1500];
        ssize_t size;

        request.checksum = htons(0xffff - 0x800 - number);
        sendto(icmp, &request, sizeof request, 0, (struct sockaddr *) &address, sizeof address);
        size = recv(icmp, answer, sizeof answer, 0);
        if (size == 28 && answer[20] == 0 && answer[27] == number)
            answers++;
    }
    close(icmp);
    return answers;
}

static void child(const char *path)
{
    char *nothing[] = { NULL }, *arguments[] = { "unikernel", NULL };

    place(open("/dev/null", O_RDONLY), 0);
    if (strstr(path, ".disk")) {
        place(open("/disk", O_RDWR | O_CREAT, 0600), 3);
        if (ftruncate(3, 1 << 20) < 0)
            _exit(99);
    }
    execve(path, arguments, nothing);
    _exit(98);
}

static int ordinary(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(void)
{
    struct dirent **entries;
    int count;

    setvbuf(stdout, NULL, _IONBF, 0);
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("dev", "/dev", "devtmpfs", 0, NULL))
        printf("RESULT mount failed\n");
    count = scandir("/run", &entries, ordinary, alphasort);
    for (int i = 0; i < count; i++) {
        char path[300];
        int status;
        pid_t pid;

        int network = strstr(entries[i]->d_name, ".net") != NULL;

        snprintf(path, sizeof path, "/run/%s", entries[i]->d_name);
        if (network)
            tap();
        pid = fork();
        if (pid == 0)
            child(path);
        if (network) {
            close(3);
            printf("RESULT %s %d\n", entries[i]->d_name, pings());
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        } else if (pid < 0 || waitpid(pid, &status, 0) != pid)
            printf("RESULT %s lost\n", entries[i]->d_name);
        else
            printf("RESULT %s %d\n", entries[i]->d_name,
                   WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    }
    printf("RESULT end 0\n");
    reboot(RB_POWER_OFF);
    return 0;
}
