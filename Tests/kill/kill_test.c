/* Kills a process that writes to a store, again and again, while others read it: nothing that a flush confirmed is lost.
 *
 *   kill_test STORE KILLS SEED room|full
 *
 * `room`: more capacity than data, so every confirmed block has to be there after each kill. `full`: the store evicts all
 * the time; then each missing block needs an eviction in the store's events, and the newest prompts have to be there. */
#define _GNU_SOURCE
#include <errno.h>
#include <kvstore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    tokens_per_block = 4,
    trunk_blocks = 2, /* shared by 16 prompts */
    blocks = 8,
    region_count = 2,
    prompt_max = 1 << 19,
    reader_count = 2,
    group_max = 4, /* prompts for each flush */
};
/* Even prompts go to slots, odd ones into the catalog. */
static const uint64_t region_bytes[2][region_count] = {{12000, 8000}, {1500, 500}};

enum standing { unused, unknown, confirmed, forgetting, forgotten };

/* What the processes tell each other; memory outlives the killed. */
static struct shared {
    _Atomic uint32_t next_prompt;
    _Atomic uint64_t reads, failures, flushes, forgets;
    _Atomic uint8_t standing[prompt_max];
} *shared;

static const char *store_path;
static int is_full;
static uint64_t seed;

static uint64_t random_number(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void fail(const char *what, uint32_t prompt, kvstore_status_t status) {
    shared->failures++;
    fprintf(stderr, "FAIL (seed %llu): %s, prompt %u: %s %s\n", (unsigned long long)seed, what, prompt,
            kvstore_status_string(status), status < 0 ? kvstore_last_error_message() : "");
}

/* ------------------------------------------------------------ prompts */

static void fill_tokens(uint32_t *tokens, uint32_t prompt) {
    uint32_t block;
    for (block = 0; block < blocks; block++) {
        uint32_t owner = block < trunk_blocks ? prompt / 16 + (1u << 30) : prompt;
        tokens[block * tokens_per_block] = owner;
        tokens[block * tokens_per_block + 1] = block;
        tokens[block * tokens_per_block + 2] = owner * 31 + block;
        tokens[block * tokens_per_block + 3] = 7;
    }
}

static void fill_region(uint8_t *bytes, size_t count, uint32_t prompt, uint32_t block, uint32_t region) {
    uint32_t owner = block < trunk_blocks ? prompt / 16 + (1u << 30) : prompt;
    uint64_t state = ((uint64_t)owner << 32) + block * 16 + region * 2 + prompt % 2;
    size_t i;
    for (i = 0; i < count; i += 8) {
        uint64_t word = random_number(&state);
        memcpy(bytes + i, &word, count - i < 8 ? count - i : 8);
    }
}

static uint64_t block_bytes(uint32_t prompt) {
    return region_bytes[prompt % 2][0] + region_bytes[prompt % 2][1];
}

/* ------------------------------------------------------------ store */

struct opened {
    kvstore_t *store;
    kvstore_namespace_t *ns[2];
};

static int open_store(struct opened *opened) {
    kvstore_config_t config;
    kvstore_status_t status;
    int i;
    kvstore_config_init(&config, sizeof config);
    config.path = store_path;
    config.capacity_bytes = is_full ? UINT64_C(64) << 20 : UINT64_C(16) << 30;
    config.catalog_bytes = is_full ? UINT64_C(52) << 20 : UINT64_C(2) << 30;
    config.host_bytes = UINT64_C(32) << 20;
    status = kvstore_open(&config, &opened->store);
    if (status != KVSTORE_OK) {
        fail("open", 0, status);
        return -1;
    }
    for (i = 0; i < 2; i++) {
        kvstore_namespace_config_t ns;
        kvstore_namespace_config_init(&ns, sizeof ns);
        ns.tokens_per_block = tokens_per_block;
        ns.region_count = region_count;
        ns.region_bytes = region_bytes[i];
        status = kvstore_namespace_open(opened->store, &ns, &opened->ns[i]);
        if (status != KVSTORE_OK) {
            fail("namespace_open", 0, status);
            return -1;
        }
    }
    return 0;
}

static uint8_t *move_buffer;
static kvstore_span_t spans[blocks * region_count];

/* Lays the spans of a whole prompt over the buffer. */
static void lay_spans(uint32_t prompt) {
    size_t offset = 0;
    int b, r;
    for (b = 0; b < blocks; b++) {
        for (r = 0; r < region_count; r++) {
            size_t count = region_bytes[prompt % 2][r];
            spans[b * region_count + r] = (kvstore_span_t){move_buffer + offset, count, count};
            offset += count;
        }
    }
}

static kvstore_status_t offload(struct opened *opened, uint32_t prompt) {
    uint32_t tokens[blocks * tokens_per_block];
    kvstore_prompt_t p = {.struct_size = sizeof p, .tokens = tokens, .token_count = blocks * tokens_per_block};
    kvstore_transfer_t t = {.struct_size = sizeof t, .spans = spans, .span_count = blocks * region_count};
    uint32_t b, r;
    fill_tokens(tokens, prompt);
    lay_spans(prompt);
    for (b = 0; b < blocks; b++) {
        for (r = 0; r < region_count; r++) {
            kvstore_span_t span = spans[b * region_count + r];
            fill_region(span.data, span.length, prompt, b, r);
        }
    }
    return kvstore_offload(opened->ns[prompt % 2], &p, &t, NULL);
}

/* Leading blocks that are there; every byte of them is checked. -1: a failure. */
static int restore(struct opened *opened, uint32_t prompt) {
    static uint8_t wanted[16384];
    uint32_t tokens[blocks * tokens_per_block], b, r;
    kvstore_prompt_t p = {.struct_size = sizeof p, .tokens = tokens, .token_count = blocks * tokens_per_block};
    kvstore_transfer_t t = {.struct_size = sizeof t, .spans = spans, .span_count = blocks * region_count};
    kvstore_transfer_result_t result = {.struct_size = sizeof result};
    kvstore_status_t status;
    fill_tokens(tokens, prompt);
    lay_spans(prompt);
    memset(move_buffer, 0xEE, block_bytes(prompt) * blocks);
    status = kvstore_restore(opened->ns[prompt % 2], &p, &t, &result);
    if (status != KVSTORE_OK && status != KVSTORE_MISS) {
        fail("restore", prompt, status);
        return -1;
    }
    for (b = 0; b < result.blocks_done; b++) {
        for (r = 0; r < region_count; r++) {
            kvstore_span_t span = spans[b * region_count + r];
            fill_region(wanted, span.length, prompt, b, r);
            if (memcmp(wanted, span.data, span.length) != 0) {
                fail("wrong bytes", prompt, KVSTORE_OK);
                return -1;
            }
        }
    }
    return (int)result.blocks_done;
}

/* ------------------------------------------------------------ the writer */

static void write_until_killed(uint64_t state) {
    struct opened opened;
    kvstore_status_t status;
    if (open_store(&opened) != 0) _exit(1);
    for (;;) {
        uint32_t choice = random_number(&state) % 16, next = shared->next_prompt, first, prompt, i;
        if (choice < 10 && next + group_max <= prompt_max) {
            uint32_t count = 1 + random_number(&state) % group_max;
            kvstore_flush_result_t flushed = {.struct_size = sizeof flushed};
            first = next;
            shared->next_prompt = next + count;
            for (i = 0; i < count; i++) {
                shared->standing[first + i] = unknown;
                status = offload(&opened, first + i);
                if (status != KVSTORE_OK) fail("offload", first + i, status), _exit(1);
            }
            status = kvstore_flush(opened.store, 0, &flushed);
            if (status != KVSTORE_OK) fail("flush", first, status), _exit(1);
            if (flushed.blocks_dropped_error > 0 || (!is_full && flushed.blocks_dropped_full + flushed.blocks_dropped_parent > 0)) {
                fail("flush dropped blocks", first, status);
            }
            if (flushed.blocks_dropped_full + flushed.blocks_dropped_parent == 0) {
                for (i = 0; i < count; i++) shared->standing[first + i] = confirmed;
            }
            shared->flushes++;
        } else if (next > 0) {
            prompt = next - 1 - random_number(&state) % (next < 500 ? next : 500);
            if (choice < 11) {
                /* The prompt's own blocks; the trunk stays. */
                uint32_t tokens[blocks * tokens_per_block];
                kvstore_prompt_t p = {.struct_size = sizeof p,
                                      .tokens = tokens,
                                      .token_count = (trunk_blocks + 1) * tokens_per_block};
                fill_tokens(tokens, prompt);
                shared->standing[prompt] = forgetting;
                status = kvstore_forget(opened.ns[prompt % 2], &p, NULL);
                if (status != KVSTORE_OK && status != KVSTORE_MISS) fail("forget", prompt, status), _exit(1);
                shared->standing[prompt] = forgotten;
                shared->forgets++;
            } else if (choice < 13) {
                /* A lease that dies with this process. */
                uint32_t tokens[blocks * tokens_per_block];
                kvstore_prompt_t p = {.struct_size = sizeof p, .tokens = tokens, .token_count = blocks * tokens_per_block};
                kvstore_match_t match = {.struct_size = sizeof match};
                fill_tokens(tokens, prompt);
                kvstore_match(opened.ns[prompt % 2], &p, 0, UINT64_C(100000000), &match);
            } else if (shared->standing[prompt] == confirmed) {
                int found = restore(&opened, prompt);
                if (!is_full && found >= 0 && found < blocks) fail("the writer misses a confirmed block", prompt, KVSTORE_OK);
            }
        }
    }
}

/* ------------------------------------------------------------ readers */

static void read_until_killed(uint64_t state) {
    struct opened opened;
    if (open_store(&opened) != 0) _exit(1);
    for (;;) {
        uint32_t next = shared->next_prompt, prompt, before;
        int found;
        if (next == 0) {
            usleep(1000);
            continue;
        }
        prompt = (uint32_t)(random_number(&state) % next);
        if (random_number(&state) % 2) prompt = next - 1 - prompt % (next < 64 ? next : 64);
        before = shared->standing[prompt];
        found = restore(&opened, prompt);
        if (!is_full && before == confirmed && found >= 0 && found < blocks && shared->standing[prompt] == confirmed) {
            fail("a reader misses a confirmed block", prompt, KVSTORE_OK);
        }
        shared->reads++;
        usleep(1000);
    }
}

/* ------------------------------------------------------------ after a kill */

/* Blocks that the store's events say were evicted. */
static uint64_t evicted_blocks(kvstore_t *store) {
    kvstore_event_t events[256];
    uint64_t cursor = 0, sum = 0;
    size_t count = 0, i;
    while (kvstore_events_read(store, &cursor, events, sizeof *events, 256, &count) == KVSTORE_OK && count > 0) {
        for (i = 0; i < count; i++) {
            if (events[i].kind == KVSTORE_EVENT_REMOVED && events[i].reason == KVSTORE_REASON_EVICTED) {
                sum += events[i].block_count;
            }
        }
    }
    return sum;
}

/* Looks at all prompts, or at those of the last rounds and a sample of the others. Exit status 1: something failed. */
static void check(int all, uint64_t state) {
    struct opened opened;
    kvstore_stats_t stats = {.struct_size = sizeof stats};
    uint64_t missing = 0, failures = shared->failures, looked = 0, corrupt = 0;
    uint32_t next = shared->next_prompt, prompt, newest = 0;
    if (open_store(&opened) != 0) _exit(1);
    for (prompt = next; prompt-- > 0;) {
        uint32_t standing = shared->standing[prompt];
        int found;
        if (!all && next - prompt > 48 && random_number(&state) % 256 != 0) continue;
        if (standing == unused) continue;
        found = restore(&opened, prompt);
        if (found < 0) continue;
        looked++;
        if (found < blocks) {
            /* A row is never durable before its payload. Who forgets makes headers invalid first, though. */
            kvstore_stats(opened.store, &stats);
            if (stats.misses_corrupt > corrupt && standing != forgetting) fail("a block failed its check", prompt, KVSTORE_OK);
            corrupt = stats.misses_corrupt;
        }
        if (standing == forgotten && found > trunk_blocks) fail("a forgotten block is back", prompt, KVSTORE_OK);
        if (standing != confirmed || found == blocks) continue;
        if (!is_full) fail("a confirmed block is missing", prompt, KVSTORE_OK);
        if (newest++ < 4 && next - prompt < 8) fail("a block of the newest prompts is missing", prompt, KVSTORE_OK);
        /* The trunk is several prompts'. */
        missing += blocks - (uint64_t)(found < trunk_blocks ? trunk_blocks : found);
    }
    kvstore_stats(opened.store, &stats);
    if (all && missing > evicted_blocks(opened.store)) fail("more blocks are missing than were evicted", (uint32_t)missing, KVSTORE_OK);
    if (kvstore_close(opened.store) != KVSTORE_OK) fail("close", 0, KVSTORE_OK);
    if (all) {
        printf("%llu prompts of %u looked up at the end, %llu blocks missing, %llu stored\n", (unsigned long long)looked, next,
               (unsigned long long)missing, (unsigned long long)stats.blocks_stored);
    }
    fflush(stdout);
    _exit(shared->failures > failures);
}

/* ------------------------------------------------------------ the parent */

static pid_t start(void (*body)(uint64_t), uint64_t state) {
    pid_t pid = fork();
    if (pid == 0) {
        body(state);
        _exit(0);
    }
    return pid;
}

static void check_some(uint64_t state) { check(0, state); }
static void check_all(uint64_t state) { check(1, state); }

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

int main(int argc, char **argv) {
    pid_t readers[reader_count], writer;
    uint64_t state;
    int kills, round, i, status, early = 0;
    if (argc != 5) {
        fprintf(stderr, "usage: kill_test STORE KILLS SEED room|full\n");
        return 2;
    }
    store_path = argv[1];
    kills = atoi(argv[2]);
    seed = state = strtoull(argv[3], NULL, 10);
    is_full = strcmp(argv[4], "full") == 0;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    move_buffer = malloc(blocks * 32768);
    if (shared == MAP_FAILED || move_buffer == NULL) return 2;

    for (i = 0; i < reader_count; i++) readers[i] = start(read_until_killed, random_number(&state));
    for (round = 0; round < kills && shared->failures < 10; round++) {
        uint64_t flushes = shared->flushes;
        int waited = 0;
        writer = start(write_until_killed, random_number(&state));
        /* Mostly under load; now and then while it is opening the store. */
        if (random_number(&state) % 8 != 0) {
            while (shared->flushes == flushes && waited++ < 20000 && waitpid(writer, &status, WNOHANG) == 0) usleep(500);
        } else {
            early++;
        }
        usleep((useconds_t)(random_number(&state) % 100000));
        kill(writer, SIGKILL);
        status = wait_for(writer);
        if (!WIFSIGNALED(status)) fail("the writer ended by itself", 0, KVSTORE_OK);
        if (round % 7 == 6) {
            i = round / 7 % reader_count;
            kill(readers[i], SIGKILL);
            wait_for(readers[i]);
            readers[i] = start(read_until_killed, random_number(&state));
        }
        status = wait_for(start(check_some, random_number(&state)));
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail("the check failed or died", (uint32_t)round, KVSTORE_OK);
        if (round % 20 == 19) {
            printf("%d kills, %u prompts, %llu flushes, %llu reads\n", round + 1, shared->next_prompt,
                   (unsigned long long)shared->flushes, (unsigned long long)shared->reads);
            fflush(stdout);
        }
    }
    for (i = 0; i < reader_count; i++) {
        if (waitpid(readers[i], &status, WNOHANG) != 0) fail("a reader ended by itself", (uint32_t)i, KVSTORE_OK);
        kill(readers[i], SIGKILL);
        wait_for(readers[i]);
    }
    status = wait_for(start(check_all, random_number(&state)));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail("the last check failed or died", 0, KVSTORE_OK);
    printf("kill (%s): %d kills of a writer (%d while it opened), %u prompts, %llu flushes, %llu forgotten, %llu reads by others meanwhile, "
           "%llu failures\n",
           argv[4], round, early, shared->next_prompt, (unsigned long long)shared->flushes, (unsigned long long)shared->forgets,
           (unsigned long long)shared->reads, (unsigned long long)shared->failures);
    return shared->failures > 0;
}
