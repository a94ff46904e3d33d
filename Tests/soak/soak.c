/* Writers and readers share a store while one after the other is killed or stopped for a moment.
 *
 * usage: soak FOLDER SECONDS SEED room|full
 *   room  everything fits: what a flush confirmed is there, in every process, until the end
 *   full  a small store: blocks come and go, what a lease covers stays, the disk is bounded
 * Half of the prompts are saved layer by layer, by two threads of a process at once and from memory that comes slowly; now and then a writer
 * forks while it does, and the child finds its handles refused. Writers and readers open the store by a relative path and go to the root
 * folder then.
 * Prints counts; exit status 1 and a line on stderr when something was wrong. */
#define _GNU_SOURCE
#include <kvstore.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { writers = 4, readers = 4, blocks = 8, shared_blocks = 4, tokens_per_block = 16, regions = 2 };
enum { region_bytes = 64 * 1024, prompts_max = 1 << 16, family = 4 };
/* The bound of the small store: about 28 MiB of slots. */
#define full_bytes (UINT64_C(64) << 20)
#define TOKENS (blocks * tokens_per_block)

/* Memory of all processes. */
typedef struct {
    uint64_t next_prompt;            /* the next one that nobody has offloaded */
    unsigned char confirmed[prompts_max]; /* a flush has said that it is durable */
    uint64_t offloaded, layered, slowed, forked, restored, refused, shortened;
    int failed;
} shared_t;

static shared_t *shared;
static bool has_room;
static uint64_t prompt_limit;
static const char *folder;

static uint64_t mix64(uint64_t x) { /* splitmix64's finaliser (Steele, Lea, Flood 2014) */
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint64_t random_state;
static uint64_t random_below(uint64_t bound) {
    random_state = mix64(random_state);
    return random_state % bound;
}

static void wrong(const char *what, uint64_t prompt, int64_t number) {
    fprintf(stderr, "WRONG: %s (prompt %" PRIu64 ", %" PRId64 "): %s\n", what, prompt, number,
            kvstore_last_error_message());
    __atomic_store_n(&shared->failed, 1, __ATOMIC_SEQ_CST);
    _exit(1);
}

/* ---------------------------------------------------------------- prompts */

/* The first blocks belong to the prompt's family, so that chains fork. */
static uint64_t chain_of(uint64_t prompt, unsigned block) {
    return block < shared_blocks ? prompt / family * family : prompt + UINT64_C(1000000000);
}

static void make_tokens(uint64_t prompt, uint32_t tokens[TOKENS]) {
    unsigned i;
    for (i = 0; i < TOKENS; i++)
        tokens[i] = (uint32_t)(mix64(chain_of(prompt, i / tokens_per_block) * 4096 + i) % 150000);
}

static void fill(uint64_t prompt, unsigned block, unsigned region, uint64_t *words) {
    uint64_t state = mix64(chain_of(prompt, block) * 64 + block * 4 + region);
    size_t i;
    for (i = 0; i < region_bytes / 8; i++) words[i] = state + i * UINT64_C(0x9E3779B97F4A7C15);
}

static bool is_right(uint64_t prompt, unsigned block, unsigned region, const uint64_t *words) {
    uint64_t state = mix64(chain_of(prompt, block) * 64 + block * 4 + region);
    size_t i;
    for (i = 0; i < region_bytes / 8; i++)
        if (words[i] != state + i * UINT64_C(0x9E3779B97F4A7C15)) return false;
    return true;
}

static kvstore_prompt_t prompt_of(const uint32_t *tokens) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.tokens = tokens;
    prompt.token_count = TOKENS;
    return prompt;
}

static uint64_t *memory; /* blocks × regions */
static kvstore_span_t spans[blocks * regions];
static kvstore_status_t statuses[blocks];

static kvstore_transfer_t transfer_of(unsigned count) {
    kvstore_transfer_t transfer;
    unsigned s;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.block_count = count;
    transfer.spans = spans;
    transfer.span_count = count * regions;
    transfer.block_status = statuses;
    for (s = 0; s < count * regions; s++) {
        spans[s].data = memory + s * (region_bytes / 8);
        spans[s].capacity = region_bytes;
        spans[s].length = region_bytes;
    }
    return transfer;
}

/* ---------------------------------------------------------------- the store */

static kvstore_t *open_store(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_config_init(&config, sizeof config);
    config.path = folder;
    config.capacity_bytes = has_room ? UINT64_C(2) << 30 : full_bytes;
    config.host_bytes = UINT64_C(16) << 20;
    if (kvstore_open(&config, &store) != KVSTORE_OK) wrong("open", 0, 0);
    return store;
}

/* By a path that leads nowhere afterwards, as a daemon's does that goes to the root. */
static kvstore_t *open_and_go_away(void) {
    static char parent[4096];
    kvstore_t *store;
    char *slash;
    snprintf(parent, sizeof parent, "%s", folder);
    slash = strrchr(parent, '/');
    if (slash == NULL) return open_store();
    *slash = '\0';
    if (chdir(parent) != 0) wrong("chdir", 0, 0);
    folder = slash + 1;
    store = open_store();
    if (chdir("/") != 0) wrong("chdir", 0, 0);
    return store;
}

static kvstore_namespace_t *open_namespace(kvstore_t *store) {
    static const uint64_t bytes[regions] = {region_bytes, region_bytes};
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    kvstore_namespace_config_init(&config, sizeof config);
    config.model_name = "soak";
    config.tokens_per_block = tokens_per_block;
    config.region_count = regions;
    config.region_bytes = bytes;
    if (kvstore_namespace_open(store, &config, &ns) != KVSTORE_OK) wrong("namespace_open", 0, 0);
    return ns;
}

/* Restores the first `count` blocks; all of them must be there, and right. */
static void restore(kvstore_namespace_t *ns, uint64_t prompt, unsigned count) {
    uint32_t tokens[TOKENS];
    kvstore_prompt_t asked;
    kvstore_transfer_t transfer = transfer_of(count);
    kvstore_transfer_result_t result;
    kvstore_status_t status;
    unsigned b, r;
    make_tokens(prompt, tokens);
    asked = prompt_of(tokens);
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    memset(memory, 0xA5, (size_t)count * regions * region_bytes);
    status = kvstore_restore(ns, &asked, &transfer, &result);
    if (status < 0) wrong("restore failed", prompt, status);
    for (b = 0; b < result.blocks_done; b++)
        for (r = 0; r < regions; r++)
            if (!is_right(prompt, b, r, memory + (b * regions + r) * (region_bytes / 8)))
                wrong("restore gave wrong bytes", prompt, b);
    if (result.blocks_done < count) wrong("restore gave fewer blocks than it must", prompt, (int64_t)result.blocks_done);
    __atomic_add_fetch(&shared->restored, count, __ATOMIC_RELAXED);
}

/* ---------------------------------------------------------------- layer by layer */

/* A region's memory whose pages come when a thread of ours gets to it; NULL where that cannot be had. */
static unsigned char *slow_region;
static int slow_descriptor = -1;
static uint64_t slow_prompt;

static void *serve_slow_region(void *argument) {
    static uint64_t page[512];
    struct uffd_msg message;
    (void)argument;
    while (read(slow_descriptor, &message, sizeof message) == (ssize_t)sizeof message) {
        struct uffdio_copy copy;
        uint64_t at = (message.arg.pagefault.address & ~UINT64_C(4095)) - (uintptr_t)slow_region;
        uint64_t state = mix64(chain_of(slow_prompt, 0) * 64), i;
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        usleep((useconds_t)(mix64(slow_prompt + at) % 3000));
        for (i = 0; i < 512; i++) page[i] = state + (at / 8 + i) * UINT64_C(0x9E3779B97F4A7C15);
        memset(&copy, 0, sizeof copy);
        copy.dst = (uintptr_t)slow_region + at;
        copy.src = (uintptr_t)page;
        copy.len = 4096;
        (void)ioctl(slow_descriptor, UFFDIO_COPY, &copy);
    }
    return NULL;
}

static void start_slow_region(void) {
    struct uffdio_api api;
    struct uffdio_register range;
    pthread_t thread;
    slow_descriptor = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (slow_descriptor < 0) return;
    memset(&api, 0, sizeof api);
    api.api = UFFD_API;
    memset(&range, 0, sizeof range);
    slow_region = (unsigned char *)mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    range.range.start = (uintptr_t)slow_region;
    range.range.len = region_bytes;
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (slow_region == MAP_FAILED || ioctl(slow_descriptor, UFFDIO_API, &api) != 0 ||
        ioctl(slow_descriptor, UFFDIO_REGISTER, &range) != 0 || pthread_create(&thread, NULL, serve_slow_region, NULL) != 0)
        slow_region = NULL;
}

typedef struct {
    kvstore_namespace_t *ns;
    uint64_t prompt;
    unsigned first_region;
    bool is_slow;
    kvstore_status_t status; /* the first that is not OK */
} layers_t;

/* Brings the regions one call at a time, from this one on. */
static void *save_layers(void *argument) {
    layers_t *layers = (layers_t *)argument;
    uint32_t tokens[TOKENS];
    kvstore_prompt_t asked;
    unsigned n, b;
    make_tokens(layers->prompt, tokens);
    asked = prompt_of(tokens);
    layers->status = KVSTORE_OK;
    for (n = 0; n < regions && layers->status == KVSTORE_OK; n++) {
        unsigned region = (layers->first_region + n) % regions;
        kvstore_span_t own[blocks];
        kvstore_transfer_t transfer;
        memset(&transfer, 0, sizeof transfer);
        transfer.struct_size = (uint32_t)sizeof transfer;
        transfer.block_count = blocks;
        transfer.first_region = region;
        transfer.region_count = 1;
        transfer.spans = own;
        transfer.span_count = blocks;
        for (b = 0; b < blocks; b++) {
            bool slow = layers->is_slow && b == 0 && region == 0;
            own[b].data = slow ? (void *)slow_region : (void *)(memory + (b * regions + region) * (region_bytes / 8));
            own[b].capacity = own[b].length = region_bytes;
        }
        layers->status = kvstore_offload(layers->ns, &asked, &transfer, NULL);
    }
    return NULL;
}

/* Two threads save the same prompt, each beginning with another layer; the worse of their statuses. */
static kvstore_status_t offload_layers(kvstore_t *store, kvstore_namespace_t *ns, uint64_t prompt) {
    layers_t layers[2];
    pthread_t thread;
    int t;
    for (t = 0; t < 2; t++) {
        layers[t].ns = ns;
        layers[t].prompt = prompt;
        layers[t].first_region = (unsigned)t;
        layers[t].is_slow = false;
    }
    if (slow_region != NULL && random_below(2) == 0) {
        slow_prompt = prompt;
        madvise(slow_region, region_bytes, MADV_DONTNEED);
        layers[random_below(2)].is_slow = true;
        __atomic_add_fetch(&shared->slowed, 1, __ATOMIC_RELAXED);
    }
    if (pthread_create(&thread, NULL, save_layers, &layers[1]) != 0) wrong("pthread_create", prompt, errno);
    if (random_below(16) == 0) {
        pid_t child = fork();
        if (child == 0) {
            kvstore_stats_t stats;
            memset(&stats, 0, sizeof stats);
            stats.struct_size = (uint32_t)sizeof stats;
            alarm(30);
            _exit(kvstore_stats(store, &stats) == KVSTORE_E_FORKED && kvstore_close(store) == KVSTORE_E_FORKED ? 0 : 1);
        }
        if (child > 0) {
            int status = 0;
            if (waitpid(child, &status, 0) == child && status != 0) wrong("a forked child was not refused", prompt, status);
            __atomic_add_fetch(&shared->forked, 1, __ATOMIC_RELAXED);
        }
    }
    (void)save_layers(&layers[0]);
    pthread_join(thread, NULL);
    __atomic_add_fetch(&shared->layered, 1, __ATOMIC_RELAXED);
    return layers[0].status != KVSTORE_OK ? layers[0].status : layers[1].status;
}

static void run_writer(void) {
    kvstore_t *store = open_and_go_away();
    kvstore_namespace_t *ns = open_namespace(store);
    start_slow_region();
    for (;;) {
        uint64_t prompt = __atomic_fetch_add(&shared->next_prompt, 1, __ATOMIC_SEQ_CST);
        uint32_t tokens[TOKENS];
        kvstore_prompt_t asked;
        kvstore_transfer_t transfer;
        kvstore_transfer_result_t result;
        kvstore_flush_result_t flushed;
        kvstore_status_t status;
        unsigned b, r;
        /* Once all are there, old ones again: most of their blocks are stored already. */
        if (prompt >= prompt_limit) prompt = random_below(prompt_limit);
        make_tokens(prompt, tokens);
        asked = prompt_of(tokens);
        for (b = 0; b < blocks; b++)
            for (r = 0; r < regions; r++) fill(prompt, b, r, memory + (b * regions + r) * (region_bytes / 8));
        transfer = transfer_of(blocks);
        memset(&result, 0, sizeof result);
        result.struct_size = (uint32_t)sizeof result;
        memset(&flushed, 0, sizeof flushed);
        flushed.struct_size = (uint32_t)sizeof flushed;
        status = random_below(2) == 0 ? offload_layers(store, ns, prompt) : kvstore_offload(ns, &asked, &transfer, &result);
        if (status < 0 || (has_room && status != KVSTORE_OK && status != KVSTORE_BUSY))
            wrong("offload", prompt, status);
        if (status != KVSTORE_OK) {
            __atomic_add_fetch(&shared->refused, 1, __ATOMIC_RELAXED);
            continue;
        }
        status = kvstore_flush(store, 0, &flushed);
        if (status != KVSTORE_OK) wrong("flush", prompt, status);
        if (has_room && flushed.blocks_dropped_full + flushed.blocks_dropped_parent + flushed.blocks_dropped_error > 0)
            wrong("blocks were dropped though there is room", prompt, (int64_t)flushed.blocks_dropped_parent);
        __atomic_store_n(&shared->confirmed[prompt % prompts_max], 1, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&shared->offloaded, 1, __ATOMIC_RELAXED);
        if (random_below(4) == 0) usleep((useconds_t)random_below(20000));
    }
}

static void run_reader(void) {
    kvstore_t *store = open_and_go_away();
    kvstore_namespace_t *ns = open_namespace(store);
    for (;;) {
        uint64_t newest = __atomic_load_n(&shared->next_prompt, __ATOMIC_SEQ_CST), prompt;
        uint32_t tokens[TOKENS];
        kvstore_prompt_t asked;
        kvstore_match_t match;
        kvstore_status_t status;
        bool confirmed;
        if (newest > prompt_limit) newest = prompt_limit;
        if (newest == 0) {
            usleep(1000);
            continue;
        }
        /* Mostly recent ones; in a full store the others are gone. */
        prompt = has_room || random_below(4) == 0 ? random_below(newest)
                                                  : newest - 1 - random_below(newest < 64 ? newest : 64);
        confirmed = __atomic_load_n(&shared->confirmed[prompt % prompts_max], __ATOMIC_SEQ_CST) != 0;
        make_tokens(prompt, tokens);
        asked = prompt_of(tokens);
        memset(&match, 0, sizeof match);
        match.struct_size = (uint32_t)sizeof match;
        status = kvstore_match(ns, &asked, 0, 0, &match);
        if (status < 0) wrong("match", prompt, status);
        if (has_room && confirmed && match.blocks_matched < blocks)
            wrong("a confirmed prompt is missing", prompt, (int64_t)match.blocks_matched);
        if (match.blocks_matched < blocks) __atomic_add_fetch(&shared->shortened, 1, __ATOMIC_RELAXED);
        if (match.lease == 0) continue;
        if (random_below(8) == 0) usleep((useconds_t)random_below(30000)); /* evictors have time meanwhile */
        restore(ns, prompt, (unsigned)match.blocks_matched);
        if (kvstore_lease_release(store, match.lease) != KVSTORE_OK) wrong("lease_release", prompt, 0);
    }
}

/* ---------------------------------------------------------------- the parent */

static pid_t start(int number, uint64_t seed) {
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    random_state = mix64(seed);
    if (number < writers)
        run_writer();
    else
        run_reader();
    _exit(1);
}

/* Bytes that the store's files take on disk. */
static uint64_t disk_bytes(const char *path) {
    DIR *opened = opendir(path);
    struct dirent *entry;
    uint64_t sum = 0;
    if (opened == NULL) return 0;
    while ((entry = readdir(opened)) != NULL) {
        char child[4096];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (lstat(child, &info) != 0) continue;
        sum += S_ISDIR(info.st_mode) ? disk_bytes(child) : (uint64_t)info.st_blocks * 512;
    }
    closedir(opened);
    return sum;
}

static double seconds_since(const struct timespec *begin) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin->tv_sec) + (double)(now.tv_nsec - begin->tv_nsec) / 1e9;
}

int main(int argc, char **argv) {
    pid_t pids[writers + readers];
    struct timespec begin;
    double seconds, next_harm = 0.5;
    uint64_t seed, kills = 0, stops = 0, most = 0, p, found = 0, confirmed = 0;
    int i, status;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    if (argc != 5) {
        fprintf(stderr, "usage: soak FOLDER SECONDS SEED room|full\n");
        return 2;
    }
    folder = argv[1];
    seconds = strtod(argv[2], NULL);
    seed = strtoull(argv[3], NULL, 10);
    has_room = strcmp(argv[4], "room") == 0;
    prompt_limit = has_room ? 2000 : UINT64_MAX; /* 2,000 prompts take 1.3 GB */
    random_state = mix64(seed);
    shared = (shared_t *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory = (uint64_t *)malloc((size_t)blocks * regions * region_bytes);
    if (shared == MAP_FAILED || memory == NULL) return 1;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (i = 0; i < writers + readers; i++) pids[i] = start(i, seed * 1000 + (uint64_t)i);
    while (seconds_since(&begin) < seconds && !__atomic_load_n(&shared->failed, __ATOMIC_SEQ_CST)) {
        uint64_t used;
        usleep(20000);
        used = disk_bytes(folder);
        if (used > most) most = used;
        if (!has_room && used > full_bytes) wrong("the disk is not bounded", 0, (int64_t)used);
        for (i = 0; i < writers + readers; i++)
            if (waitpid(pids[i], &status, WNOHANG) == pids[i]) wrong("a process ended by itself", 0, status);
        if (seconds_since(&begin) < next_harm) continue;
        next_harm = seconds_since(&begin) + 0.2 + (double)random_below(1000) / 1000;
        i = (int)random_below(writers + readers);
        if (random_below(4) == 0) {
            /* It may hold the catalog's lock: the others wait a little. */
            kill(pids[i], SIGSTOP);
            usleep((useconds_t)random_below(200000));
            kill(pids[i], SIGCONT);
            stops++;
        } else {
            kill(pids[i], SIGKILL);
            if (waitpid(pids[i], &status, 0) == pids[i] && !WIFSIGNALED(status))
                wrong("a process ended by itself", 0, status);
            kills++;
            pids[i] = start(i, seed * 1000 + 100 + kills);
        }
    }
    for (i = 0; i < writers + readers; i++) kill(pids[i], SIGKILL);
    for (i = 0; i < writers + readers; i++) waitpid(pids[i], &status, 0);
    if (shared->failed) return 1;

    store = open_store();
    ns = open_namespace(store);
    for (p = 0; p < shared->next_prompt && p < prompts_max; p++) {
        uint32_t tokens[TOKENS];
        kvstore_prompt_t asked;
        kvstore_match_t match;
        make_tokens(p, tokens);
        asked = prompt_of(tokens);
        memset(&match, 0, sizeof match);
        match.struct_size = (uint32_t)sizeof match;
        if (kvstore_match(ns, &asked, KVSTORE_MATCH_PEEK, 0, &match) < 0) wrong("match at the end", p, 0);
        confirmed += shared->confirmed[p];
        if (has_room && shared->confirmed[p] && match.blocks_matched < blocks)
            wrong("a confirmed prompt is gone at the end", p, (int64_t)match.blocks_matched);
        if (match.blocks_matched > 0) restore(ns, p, (unsigned)match.blocks_matched);
        found += match.blocks_matched;
    }
    if (kvstore_close(store) != KVSTORE_OK) wrong("close", 0, 0);
    printf("%s: %" PRIu64 " prompts saved layer by layer by two threads, %" PRIu64 " from slow memory, %" PRIu64 " forks meanwhile\n", argv[4],
           shared->layered, shared->slowed, shared->forked);
    printf("%s: %.0f s, %" PRIu64 " kills, %" PRIu64 " stops; %" PRIu64 " prompts confirmed, %" PRIu64
           " blocks restored, %" PRIu64 " matches shortened, %" PRIu64 " offloads refused; at the end %" PRIu64
           " blocks found and compared; most bytes on disk %" PRIu64 "\n",
           argv[4], seconds_since(&begin), kills, stops, has_room ? confirmed : shared->offloaded, shared->restored,
           shared->shortened, shared->refused, found, most);
    return confirmed > 0 && shared->restored > 0 ? 0 : 1;
}
