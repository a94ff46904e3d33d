/* The best that a plain program does: SET and GET of one length on four blocking connections, a thread each, without checks of what
 * comes back beyond its length. Prints GB/s and CPU seconds a GB of this program. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { threads = 4 };
static int port, phase;
static size_t length;
static long count;
static int sockets[threads];

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, struct iovec *parts, int part_count) {
    while (part_count > 0) {
        ssize_t sent = writev(fd, parts, part_count);
        if (sent <= 0) fail("writev");
        while (part_count > 0 && (size_t)sent >= parts->iov_len) {
            sent -= (ssize_t)parts->iov_len;
            parts++, part_count--;
        }
        if (part_count > 0) {
            parts->iov_base = (char *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
}

static void *work(void *argument) {
    long number = (long)argument;
    int fd = sockets[number];
    char *memory = malloc(length + 64), head[128];
    memset(memory, 7, length);
    for (long index = number; index < count; index += threads) {
        char name[64];
        int name_length = snprintf(name, sizeof name, "raw:%zu:%ld", length, index);
        if (phase == 0) {
            int head_length = snprintf(head, sizeof head, "*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%zu\r\n", name_length, name, length);
            char tail[] = "\r\n$2\r\nPX\r\n$6\r\n600000\r\n";
            struct iovec parts[] = {{head, (size_t)head_length}, {memory, length}, {tail, sizeof tail - 1}};
            send_all(fd, parts, 3);
            if (recv(fd, head, 5, MSG_WAITALL) != 5 || head[0] != '+') fail("SET");
        } else {
            int head_length = snprintf(head, sizeof head, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", name_length, name);
            struct iovec parts[] = {{head, (size_t)head_length}};
            send_all(fd, parts, 1);
            int expected = snprintf(head, sizeof head, "$%zu\r\n", length);
            struct iovec wanted[] = {{head, (size_t)expected}, {memory, length + 2}};
            size_t missing = (size_t)expected + length + 2;
            struct iovec *next = wanted;
            while (missing > 0) {
                ssize_t got = readv(fd, next, (int)(wanted + 2 - next));
                if (got <= 0) fail("GET");
                missing -= (size_t)got;
                while (next < wanted + 2 && (size_t)got >= next->iov_len) got -= (ssize_t)next++->iov_len;
                if (next < wanted + 2) {
                    next->iov_base = (char *)next->iov_base + got;
                    next->iov_len -= (size_t)got;
                }
            }
        }
    }
    free(memory);
    return NULL;
}

int main(int argument_count, char **arguments) {
    if (argument_count != 4) return 2;
    port = atoi(arguments[1]);
    length = strtoul(arguments[2], NULL, 10);
    count = atol(arguments[3]);
    for (int index = 0; index < threads; index++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        sockets[index] = socket(AF_INET, SOCK_STREAM, 0);
        int yes = 1;
        setsockopt(sockets[index], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (connect(sockets[index], (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    }
    for (phase = 0; phase < 2; phase++) {
        double time = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        pthread_t ids[threads];
        for (long index = 0; index < threads; index++) pthread_create(&ids[index], NULL, work, (void *)index);
        for (int index = 0; index < threads; index++) pthread_join(ids[index], NULL);
        double bytes = (double)length * (double)count / 1e9;
        printf("%s=%g %s_cpu=%g ", phase ? "get" : "put", bytes / (now(CLOCK_MONOTONIC) - time), phase ? "get" : "put",
               (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / bytes);
    }
    printf("\n");
    return 0;
}
