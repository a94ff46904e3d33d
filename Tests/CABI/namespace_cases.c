/* Identity: what makes two namespaces, and what does not; block keys and their published vectors. */
#include "harness.h"

#include <dirent.h>
#include <sys/stat.h>

typedef void (*change_t)(kvstore_namespace_config_t *config);

static const uint64_t other_regions[] = {2048, 2048, 4096, 1024};
static const uint64_t swapped_regions[] = {1024, 2048};
static const uint64_t one_more_region[] = {2048, 1024, 1024};
static const uint64_t base_regions[] = {2048, 1024};

static kvstore_bytes_t bytes_of(const char *text) {
    kvstore_bytes_t bytes;
    bytes.data = text;
    bytes.length = strlen(text);
    return bytes;
}

/* A record with every field filled in, so that clearing one is a change too. */
static void full_record(kvstore_namespace_config_t *config) {
    CHECK_STATUS(kvstore_namespace_config_init(config, sizeof *config), KVSTORE_OK);
    config->tokens_per_block = 4;
    config->region_count = 2;
    config->region_bytes = base_regions;
    config->model_name = "model";
    config->weights_digest = bytes_of("weights");
    config->adapter_digest = bytes_of("adapter");
    config->tokenizer_digest = bytes_of("tokenizer");
    config->kv_dtype = "fp16";
    config->kv_quantization = "none";
    config->layout = "layout";
    config->rope = "rope";
    config->engine_format = "engine";
    config->engine_bytes = bytes_of("bytes");
    config->layer_count = 2;
    config->kv_head_count = 4;
    config->head_size = 64;
    config->tensor_parallel_rank = 1;
    config->tensor_parallel_size = 4;
    config->pipeline_parallel_rank = 1;
    config->pipeline_parallel_size = 4;
    config->context_parallel_rank = 1;
    config->context_parallel_size = 4;
    config->salt = bytes_of("tenant secret 1");
    config->extra_bytes_max = 128;
}

#define CHANGE(name, statement) \
    static void name(kvstore_namespace_config_t *c) { statement; }
CHANGE(nothing, (void)c)
CHANGE(flags, c->flags = KVSTORE_NAMESPACE_REGIONS_VARIABLE)
CHANGE(tokens_per_block, c->tokens_per_block = 8)
CHANGE(region_bytes, c->region_bytes = other_regions)
CHANGE(region_order, c->region_bytes = swapped_regions)
CHANGE(region_count_more, c->region_count = 3; c->region_bytes = one_more_region)
CHANGE(region_count_less, c->region_count = 1)
CHANGE(model_name, c->model_name = "Model")
CHANGE(model_name_longer, c->model_name = "models")
CHANGE(model_name_empty, c->model_name = "")
CHANGE(weights_digest, c->weights_digest = bytes_of("weighty"))
CHANGE(weights_digest_empty, c->weights_digest.length = 0)
CHANGE(adapter_digest, c->adapter_digest = bytes_of("adapted"))
CHANGE(adapter_digest_empty, c->adapter_digest.length = 0; c->adapter_digest.data = NULL)
CHANGE(tokenizer_digest, c->tokenizer_digest = bytes_of("tokeniser"))
CHANGE(kv_dtype, c->kv_dtype = "bf16")
CHANGE(kv_quantization, c->kv_quantization = "per-head")
CHANGE(layout, c->layout = "layour")
CHANGE(rope, c->rope = "rope theta 1000000")
CHANGE(engine_format, c->engine_format = "engine avx512")
CHANGE(engine_bytes, c->engine_bytes = bytes_of("byteS"))
CHANGE(layer_count, c->layer_count = 3)
CHANGE(kv_head_count, c->kv_head_count = 2)
CHANGE(head_size, c->head_size = 128)
CHANGE(tensor_parallel_rank, c->tensor_parallel_rank = 2)
CHANGE(tensor_parallel_size, c->tensor_parallel_size = 8)
CHANGE(pipeline_parallel_rank, c->pipeline_parallel_rank = 2)
CHANGE(pipeline_parallel_size, c->pipeline_parallel_size = 8)
CHANGE(context_parallel_rank, c->context_parallel_rank = 2)
CHANGE(context_parallel_size, c->context_parallel_size = 8)
CHANGE(salt, c->salt = bytes_of("tenant secret 2"))
CHANGE(salt_empty, c->salt.length = 0)
CHANGE(extra_bytes_max, c->extra_bytes_max = 129)
static const kvstore_group_t one_group[] = {{0, 1, 512, 0}}, other_window[] = {{0, 1, 513, 0}};
static const kvstore_group_t two_groups[] = {{0, 1, 512, 0}, {1, 1, 0, 0}};
CHANGE(groups, c->groups = one_group; c->group_count = 1)
CHANGE(groups_window, c->groups = other_window; c->group_count = 1)
CHANGE(groups_more, c->groups = two_groups; c->group_count = 2)
CHANGE(digest_mode, c->identity_mode = KVSTORE_IDENTITY_DIGEST; c->digest_bytes = 32)
CHANGE(digest_mode_longer, c->identity_mode = KVSTORE_IDENTITY_DIGEST; c->digest_bytes = 64)
/* The same bytes, cut elsewhere: fields must not run into each other. */
CHANGE(cut_strings, c->layout = "layou"; c->rope = "trope")
CHANGE(cut_digests, c->weights_digest = bytes_of("weightsa"); c->adapter_digest = bytes_of("dapter"))

static const struct {
    const char *name;
    change_t change;
    bool digest;
} changes[] = {
#define ROW(name) {#name, name, false}
    ROW(nothing), ROW(flags), ROW(tokens_per_block), ROW(region_bytes), ROW(region_order),
    ROW(region_count_more), ROW(region_count_less), ROW(model_name), ROW(model_name_longer),
    ROW(model_name_empty), ROW(weights_digest), ROW(weights_digest_empty), ROW(adapter_digest),
    ROW(adapter_digest_empty), ROW(tokenizer_digest), ROW(kv_dtype), ROW(kv_quantization), ROW(layout),
    ROW(rope), ROW(engine_format), ROW(engine_bytes), ROW(layer_count), ROW(kv_head_count), ROW(head_size),
    ROW(tensor_parallel_rank), ROW(tensor_parallel_size), ROW(pipeline_parallel_rank),
    ROW(pipeline_parallel_size), ROW(context_parallel_rank), ROW(context_parallel_size), ROW(salt),
    ROW(salt_empty), ROW(extra_bytes_max), ROW(cut_strings), ROW(cut_digests),
    ROW(groups), ROW(groups_window), ROW(groups_more),
    {"digest_mode", digest_mode, true},
    {"digest_mode_longer", digest_mode_longer, true},
#undef ROW
};
enum { change_count = sizeof changes / sizeof changes[0] };

static void every_field_makes_a_namespace(void) {
    uint32_t tokens[16];
    kvstore_block_key_t keys[change_count][2];
    kvstore_namespace_t *handles[change_count];
    kvstore_t *store = open_small(path_in_dir("store"));
    shape_t base;
    int i, j;
    for (i = 0; i < 16; i++) tokens[i] = (uint32_t)i * 7;
    memset(&base, 0, sizeof base);
    base.tokens_per_block = 4;
    base.region_count = 2;
    base.region_bytes[0] = 2048;
    base.region_bytes[1] = 1024;
    memset(keys, 0, sizeof keys);
    for (i = 0; i < change_count; i++) {
        kvstore_namespace_config_t config;
        /* Digest mode gets the tokens' bytes as its digests, so that its words are the same. */
        kvstore_prompt_t prompt = changes[i].digest ? digest_prompt(tokens, 1) : prompt_of(tokens, 16);
        size_t count = 0;
        full_record(&config);
        changes[i].change(&config);
        CHECK_STATUS(kvstore_namespace_open(store, &config, &handles[i]), KVSTORE_OK);
        CHECK_ONE_OF(kvstore_block_keys(handles[i], &prompt, keys[i], 2, &count), 2, KVSTORE_OK,
                     KVSTORE_E_BUFFER_TOO_SMALL);
        CHECK(count >= 1);
        for (j = 0; j < i; j++)
            if (memcmp(&keys[i][0], &keys[j][0], sizeof keys[i][0]) == 0)
                fail(__FILE__, __LINE__, "%s and %s have the same key", changes[i].name, changes[j].name);
    }
    /* Blocks of the first are found in the first, and nowhere else. */
    offload_prompt(handles[0], &base, tokens, 4, 1);
    for (i = 0; i < change_count; i++) {
        kvstore_prompt_t prompt = changes[i].digest ? digest_prompt(tokens, 1) : prompt_of(tokens, 16);
        kvstore_match_t match = match_zero();
        kvstore_status_t status = kvstore_match(handles[i], &prompt, KVSTORE_MATCH_PEEK, 0, &match);
        if (status != (i == 0 ? KVSTORE_OK : KVSTORE_MISS))
            fail(__FILE__, __LINE__, "%s: match is %s", changes[i].name, kvstore_status_string(status));
    }
    /* The same record gives the same namespace again, also from other memory, also after a restart. */
    for (i = 0; i < 2; i++) {
        kvstore_namespace_config_t config;
        kvstore_namespace_t *ns;
        char model[] = "model", weights[] = "weights";
        uint64_t regions[2] = {2048, 1024};
        kvstore_block_key_t key;
        kvstore_prompt_t prompt = prompt_of(tokens, 4);
        size_t count = 0;
        full_record(&config);
        config.model_name = model;
        config.weights_digest.data = weights;
        config.region_bytes = regions;
        CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
        memset(model, 'x', 5); /* the library keeps no pointer into the caller's memory */
        memset(weights, 'x', 7);
        regions[0] = regions[1] = 1;
        CHECK_STATUS(kvstore_block_keys(ns, &prompt, &key, 1, &count), KVSTORE_OK);
        CHECK(memcmp(&key, &keys[0][0], sizeof key) == 0);
        check_restore(ns, &base, tokens, 4, 1);
        close_store(store);
        store = open_small(path_in_dir("store"));
    }
    close_store(store);
}

static void null_is_the_empty_string(void) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *with_null, *with_empty;
    kvstore_t *store = open_small(path_in_dir("store"));
    uint32_t tokens[4] = {1, 2, 3, 4};
    kvstore_prompt_t prompt = prompt_of(tokens, 4);
    kvstore_block_key_t one, other;
    size_t count = 0;
    CHECK_STATUS(kvstore_namespace_config_init(&config, sizeof config), KVSTORE_OK);
    config.tokens_per_block = 4;
    config.region_count = 2;
    config.region_bytes = base_regions;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &with_null), KVSTORE_OK);
    config.model_name = config.kv_dtype = config.kv_quantization = "";
    config.layout = config.rope = config.engine_format = "";
    config.weights_digest = config.adapter_digest = config.tokenizer_digest = bytes_of("");
    config.engine_bytes = config.salt = bytes_of("");
    CHECK_STATUS(kvstore_namespace_open(store, &config, &with_empty), KVSTORE_OK);
    CHECK_STATUS(kvstore_block_keys(with_null, &prompt, &one, 1, &count), KVSTORE_OK);
    CHECK_STATUS(kvstore_block_keys(with_empty, &prompt, &other, 1, &count), KVSTORE_OK);
    CHECK(memcmp(&one, &other, sizeof one) == 0);
    close_store(store);
}

/* Is `needle` in a file below `path`? */
static bool tree_holds(const char *path, const char *needle) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    size_t needle_bytes = strlen(needle);
    bool found = false;
    CHECK(folder != NULL);
    while (!found && (entry = readdir(folder)) != NULL) {
        char child[4096];
        struct stat info;
        if (entry->d_name[0] == '.') continue;
        CHECK((size_t)snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < sizeof child);
        CHECK(lstat(child, &info) == 0);
        if (S_ISDIR(info.st_mode)) {
            found = tree_holds(child, needle);
        } else {
            static char bytes[1 << 20];
            FILE *file = fopen(child, "rb");
            size_t kept = 0, got;
            CHECK(file != NULL);
            while (!found && (got = fread(bytes + kept, 1, sizeof bytes - kept, file)) > 0) {
                size_t length = kept + got, i;
                for (i = 0; !found && i + needle_bytes <= length; i++)
                    found = bytes[i] == needle[0] && memcmp(bytes + i, needle, needle_bytes) == 0;
                kept = length < needle_bytes ? length : needle_bytes - 1;
                memmove(bytes, bytes + length - kept, kept);
            }
            fclose(file);
        }
    }
    closedir(folder);
    return found;
}

static void salt_is_never_stored(void) {
    const char *secret = "s3cr3t-salt-of-tenant-42";
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns;
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    namespace_config(&shape, &config);
    config.model_name = "a-name-that-is-stored";
    config.salt = bytes_of(secret);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    offload_prompt(ns, &shape, tokens, 4, 1);
    close_store(store);
    CHECK(tree_holds(path_in_dir("store"), "a-name-that-is-stored")); /* the search itself works */
    CHECK(!tree_holds(path_in_dir("store"), secret));
    /* Its keyed digest still tells it from others. */
    store = open_small(path_in_dir("store"));
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    check_restore(ns, &shape, tokens, 4, 1);
    config.salt = bytes_of("s3cr3t-salt-of-tenant-43");
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, tokens, 64), 0);
    close_store(store);
    free(tokens);
}

static void check_key(const kvstore_block_key_t *key, const char *hexadecimal, const char *what) {
    char text[33];
    int i;
    for (i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", key->bytes[i]);
    if (strcmp(text, hexadecimal) != 0)
        fail(__FILE__, __LINE__, "%s is %s, expected %s", what, text, hexadecimal);
}

/* docs/key-test-vectors.md, typed in: a reader in another language must find the same keys. */
static void published_key_vectors(void) {
    static const uint64_t regions[] = {64, 64};
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_small(path_in_dir("store"));
    uint32_t words[16];
    unsigned char extra[2] = {0xAA, 0xBB};
    kvstore_bytes_t extras[1];
    kvstore_block_key_t keys[2];
    kvstore_prompt_t prompt = prompt_of(words, 8);
    size_t count = 0;
    uint32_t i;
    for (i = 0; i < 16; i++) words[i] = i;
    CHECK_STATUS(kvstore_namespace_config_init(&config, sizeof config), KVSTORE_OK);
    config.tokens_per_block = 4;
    config.region_count = 2;
    config.region_bytes = regions;
    config.model_name = "vector";
    config.kv_dtype = "fp16";
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 2, &count), KVSTORE_OK);
    CHECK_EQ(count, 2);
    check_key(&keys[0], "c56d62ed6542fb7c2af50c4b11be3fb6", "tokens 0-3");
    check_key(&keys[1], "463060c5d70a28089d35da03948ba1ce", "tokens 4-7");
    extras[0].data = extra;
    extras[0].length = 2;
    prompt.extra = extras;
    prompt.extra_count = 1;
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 2, &count), KVSTORE_OK);
    check_key(&keys[0], "0bddcd7d3e5a8357c6d83ad047d5900c", "tokens 0-3 with extra bytes");
    config.identity_mode = KVSTORE_IDENTITY_DIGEST;
    config.digest_bytes = 32;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    prompt = digest_prompt(words, 2);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 2, &count), KVSTORE_OK);
    check_key(&keys[0], "d20fa3b634498a7596e11a9f997eb23c", "digest 0-7");
    check_key(&keys[1], "66ba6970d1a5b2a5f41bcd25826f8760", "digest 8-15");
    close_store(store);
}

static void keys_are_chained(void) {
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint32_t *tokens = make_tokens(1, 67), *branch = make_tokens(1, 67);
    kvstore_prompt_t prompt = prompt_of(tokens, 67), other = prompt_of(branch, 67);
    kvstore_block_key_t keys[5], again[5];
    size_t count = 0, i, j;
    memset(keys, 0xA5, sizeof keys);
    /* A rest of three tokens fills no block. */
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 5, &count), KVSTORE_OK);
    CHECK_EQ(count, 4);
    for (i = 0; i < 16; i++) CHECK_EQ(keys[4].bytes[i], 0xA5); /* nothing behind the count is written */
    for (i = 0; i < 4; i++)
        for (j = 0; j < i; j++) CHECK(memcmp(&keys[i], &keys[j], sizeof keys[i]) != 0);
    branch[20] ^= 1; /* in the second block: it and all behind it change */
    CHECK_STATUS(kvstore_block_keys(ns, &other, again, 5, &count), KVSTORE_OK);
    CHECK(memcmp(&keys[0], &again[0], sizeof keys[0]) == 0);
    for (i = 1; i < 4; i++) CHECK(memcmp(&keys[i], &again[i], sizeof keys[i]) != 0);
    branch[20] ^= 1;
    branch[65] ^= 1; /* in the rest: no block */
    CHECK_STATUS(kvstore_block_keys(ns, &other, again, 5, &count), KVSTORE_OK);
    CHECK(memcmp(keys, again, 4 * sizeof keys[0]) == 0);
    /* Too little room: the count all the same, and as many keys as fit. */
    memset(again, 0xA5, sizeof again);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, again, 2, &count), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(count, 4);
    CHECK(memcmp(keys, again, 2 * sizeof keys[0]) == 0);
    CHECK_EQ(again[2].bytes[0], 0xA5);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, NULL, 0, &count), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(count, 4);
    /* No full block: no key, no room needed. */
    prompt.token_count = 15;
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, NULL, 0, &count), KVSTORE_OK);
    CHECK_EQ(count, 0);
    close_store(store);
    free(tokens);
    free(branch);
}

/* Over its quota a namespace loses its own blocks; opening without a word about it leaves it. */
static void quota_is_kept(void) {
    shape_t shape = shape_mha(), other_shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns, *other, *same;
    kvstore_namespace_config_t config;
    uint64_t slot_bytes = 8 * 4096 + 4096, seed;
    other_shape.name = "other";
    other = open_namespace(store, &other_shape);
    namespace_config(&shape, &config);
    CHECK_EQ(config.quota_bytes, KVSTORE_KEEP);
    config.quota_bytes = 6 * slot_bytes;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    for (seed = 1; seed <= 5; seed++) {
        uint32_t *tokens = make_tokens(seed, 64);
        offload_prompt(other, &other_shape, tokens, 4, seed);
        offload_prompt(ns, &shape, tokens, 4, seed);
        flush_store(store);
        free(tokens);
    }
    same = open_namespace(store, &shape);
    for (seed = 1; seed <= 5; seed++) {
        uint32_t *tokens = make_tokens(seed, 64);
        CHECK_EQ(peek_blocks(other, tokens, 64), 4);
        CHECK_EQ(peek_blocks(same, tokens, 64), seed < 4 ? 0 : seed == 4 ? 2 : 4);
        free(tokens);
    }
    config.quota_bytes = 1; /* less than a block: nothing is kept */
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    CHECK_EQ(stats_of(store).blocks_stored, 20);
    /* A caller of the first header knows of no limits, and changes none. */
    config.struct_size = 208;
    config.quota_bytes = 0;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    {
        uint32_t *tokens = make_tokens(9, 64);
        kvstore_flush_result_t flushed = flush_zero();
        offload_prompt(ns, &shape, tokens, 4, 9);
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        /* Where the first goes in a commit before the others, these have lost their parent. */
        CHECK_EQ(flushed.blocks_dropped_quota + flushed.blocks_dropped_parent, 4);
        CHECK(flushed.blocks_dropped_quota > 0);
        CHECK_EQ(peek_blocks(ns, tokens, 64), 0);
        free(tokens);
    }
    close_store(store);
}

const test_case_t namespace_cases[] = {
    {"every_field_makes_a_namespace", every_field_makes_a_namespace},
    {"null_is_the_empty_string", null_is_the_empty_string},
    {"salt_is_never_stored", salt_is_never_stored},
    {"published_key_vectors", published_key_vectors},
    {"keys_are_chained", keys_are_chained},
    {"quota_is_kept", quota_is_kept},
    {NULL, NULL},
};
