#include "harness.h"

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

const char *test_program;
const char *test_dir;

/* ---------------------------------------------------------------- checks */

void fail(const char *file, int line, const char *format, ...) {
    char text[2048];
    va_list arguments;
    const char *base = strrchr(file, '/');
    int length = snprintf(text, sizeof text, "  %s:%d: ", base ? base + 1 : file, line);
    va_start(arguments, format);
    if (length > 0 && (size_t)length < sizeof text)
        vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", text);
    fflush(NULL);
    _exit(1); /* not exit: another thread may be inside the library, or this may be a forked child */
}

void skip(const char *reason) {
    fprintf(stderr, "  skipped: %s\n", reason);
    fflush(NULL);
    _exit(77);
}

/* After an error the message says something; whatever happens it is never NULL. */
static void check_message(const char *file, int line, const char *call, kvstore_status_t got) {
    const char *message = kvstore_last_error_message();
    if (message == NULL) fail(file, line, "%s: the last error message is NULL", call);
    if (got < 0 && message[0] == '\0')
        fail(file, line, "%s: %s without a message", call, kvstore_status_string(got));
}

kvstore_status_t check_status(const char *file, int line, const char *call, kvstore_status_t got,
                              kvstore_status_t want) {
    if (got != want)
        fail(file, line, "%s is %s (%s), expected %s", call, kvstore_status_string(got),
             got < 0 ? kvstore_last_error_message() : "no error", kvstore_status_string(want));
    check_message(file, line, call, got);
    return got;
}

kvstore_status_t check_one_of(const char *file, int line, const char *call, kvstore_status_t got, int count,
                              ...) {
    va_list wanted;
    int i;
    char names[512] = "";
    va_start(wanted, count);
    for (i = 0; i < count; i++) {
        kvstore_status_t want = (kvstore_status_t)va_arg(wanted, int);
        size_t used = strlen(names);
        if (want == got) {
            va_end(wanted);
            check_message(file, line, call, got);
            return got;
        }
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : " or ", kvstore_status_string(want));
    }
    va_end(wanted);
    fail(file, line, "%s is %s (%s), expected %s", call, kvstore_status_string(got),
         got < 0 ? kvstore_last_error_message() : "no error", names);
    return got;
}

/* ---------------------------------------------------------------- small things */

void *must_malloc(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) fail(__FILE__, __LINE__, "out of memory");
    return memory;
}

char *path_in_dir(const char *name) {
    size_t bytes = strlen(test_dir) + strlen(name) + 2;
    char *path = (char *)must_malloc(bytes);
    snprintf(path, bytes, "%s/%s", test_dir, name);
    return path;
}

uint64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void sleep_milliseconds(unsigned milliseconds) {
    struct timespec pause;
    pause.tv_sec = (time_t)(milliseconds / 1000);
    pause.tv_nsec = (long)(milliseconds % 1000) * 1000000L;
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
}

int spawn_role(const char *role, const char *argument, const char *argument2, int *read_end) {
    int ends[2] = {-1, -1};
    pid_t pid;
    if (read_end != NULL && pipe(ends) != 0) fail(__FILE__, __LINE__, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid = fork();
    if (pid < 0) fail(__FILE__, __LINE__, "fork: %s", strerror(errno));
    if (pid == 0) {
        if (read_end != NULL) {
            dup2(ends[1], 1);
            close(ends[0]);
            close(ends[1]);
        }
        execl(test_program, test_program, "--role", role, test_dir, argument ? argument : "",
              argument2 ? argument2 : "", (char *)NULL);
        _exit(126);
    }
    if (read_end != NULL) {
        close(ends[1]);
        *read_end = ends[0];
    }
    return (int)pid;
}

int wait_for(int pid) {
    int status = 0;
    while (waitpid((pid_t)pid, &status, 0) < 0) {
        if (errno != EINTR) fail(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void kill_child(int pid) {
    int status;
    if (kill((pid_t)pid, SIGKILL) != 0) fail(__FILE__, __LINE__, "kill: %s", strerror(errno));
    status = wait_for(pid);
    if (status != 128 + SIGKILL) fail(__FILE__, __LINE__, "a process ended by itself with %d", status);
}

/* ---------------------------------------------------------------- stores and namespaces */

void small_config(kvstore_config_t *config, const char *path) {
    CHECK_STATUS(kvstore_config_init(config, sizeof *config), KVSTORE_OK);
    config->path = path;
    config->capacity_bytes = 256 * MIB;
    config->host_bytes = 16 * MIB;
}

kvstore_t *open_small(const char *path) {
    kvstore_config_t config;
    small_config(&config, path);
    return open_store(&config);
}

kvstore_t *open_store(const kvstore_config_t *config) {
    kvstore_t *store = NULL;
    CHECK_STATUS(kvstore_open(config, &store), KVSTORE_OK);
    CHECK(store != NULL);
    return store;
}

void close_store(kvstore_t *store) { CHECK_STATUS(kvstore_close(store), KVSTORE_OK); }

kvstore_flush_result_t flush_zero(void) {
    kvstore_flush_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    return result;
}

void flush_store(kvstore_t *store) {
    kvstore_flush_result_t result = flush_zero();
    CHECK_STATUS(kvstore_flush(store, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_dropped_full, 0);
    CHECK_EQ(result.blocks_dropped_parent, 0);
    CHECK_EQ(result.blocks_dropped_error, 0);
#ifndef KVSTORE_TESTS_PAST_HEADER /* Tests/Fixtures compiles with headers that had no such fields */
    CHECK_EQ(result.blocks_dropped_quota, 0);
    CHECK_EQ(result.blocks_dropped_incomplete, 0);
#endif
}

kvstore_stats_t stats_zero(void) {
    kvstore_stats_t stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    return stats;
}

kvstore_stats_t stats_of(kvstore_t *store) {
    kvstore_stats_t stats = stats_zero();
    CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_OK);
    return stats;
}

static shape_t shape_uniform(const char *name, uint32_t region_count, uint64_t region_bytes) {
    shape_t shape;
    uint32_t r;
    memset(&shape, 0, sizeof shape);
    shape.name = name;
    shape.tokens_per_block = 16;
    shape.region_count = region_count;
    for (r = 0; r < region_count; r++) shape.region_bytes[r] = region_bytes;
    return shape;
}

shape_t shape_mha(void) { return shape_uniform("mha", 8, 4096); }
shape_t shape_gqa(void) { return shape_uniform("gqa", 8, 1024); }
shape_t shape_mla(void) { return shape_uniform("mla", 3, 18432); }
shape_t shape_large(void) { return shape_uniform("large", 1, 256 * 1024); }

shape_t shape_fp8(void) {
    shape_t shape = shape_uniform("fp8", 8, 1000);
    shape.tokens_per_block = 5; /* no power of two */
    shape.region_bytes[2] = shape.region_bytes[6] = 12;
    shape.region_bytes[3] = shape.region_bytes[7] = 1;
    return shape;
}

shape_t shape_blob(void) {
    shape_t shape = shape_uniform("blob", 1, 100000);
    shape.flags = KVSTORE_NAMESPACE_REGIONS_VARIABLE;
    return shape;
}

void namespace_config(const shape_t *shape, kvstore_namespace_config_t *config) {
    CHECK_STATUS(kvstore_namespace_config_init(config, sizeof *config), KVSTORE_OK);
    config->flags = shape->flags;
    config->tokens_per_block = shape->tokens_per_block;
    config->region_count = shape->region_count;
    config->region_bytes = shape->region_bytes;
    config->model_name = shape->name;
}

kvstore_namespace_t *open_namespace(kvstore_t *store, const shape_t *shape) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    CHECK(ns != NULL);
    return ns;
}
