/* The first process of an emulated machine: runs every executable in /run, in order of their names, with a disk of
   1 MiB as descriptor 3 if its name ends in ".disk", and writes how each ended to the console. See test_aarch64. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void place(int from, int to)
{
    if (from < 0 || dup2(from, to) < 0)
        _exit(99);
    if (from != to)
        close(from);
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

        snprintf(path, sizeof path, "/run/%s", entries[i]->d_name);
        pid = fork();
        if (pid == 0)
            child(path);
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            printf("RESULT %s lost\n", entries[i]->d_name);
        else
            printf("RESULT %s %d\n", entries[i]->d_name,
                   WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    }
    printf("RESULT end 0\n");
    reboot(RB_POWER_OFF);
    return 0;
}
