/* The floor for running commands: COUNT times ARGV by posix_spawnp, at most JOBS at once, nothing kept.
   usage: spawn COUNT JOBS ARGV... */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int left = atoi(argv[1]), jobs = atoi(argv[2]), running = 0;
    while (left > 0 || running > 0) {
        while (left > 0 && running < jobs) {
            pid_t pid;
            if (posix_spawnp(&pid, argv[3], NULL, NULL, argv + 3, environ) != 0) return 1;
            left--, running++;
        }
        int status;
        if (wait(&status) < 0) return 1;
        running--;
    }
    return 0;
}
