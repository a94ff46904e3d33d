/* LD_PRELOAD: the clock of the wall is $WALL_CLOCK_SECONDS ahead (or behind, if negative). */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    const char *seconds = getenv("WALL_CLOCK_SECONDS");
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && seconds != NULL) time->tv_sec += atol(seconds);
    return result;
}
