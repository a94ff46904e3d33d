/* Seeing inside through the C interface: why a prompt missed, sessions, metrics. */
#include "harness.h"

static kvstore_explanation_t explain(kvstore_namespace_t *ns, const uint32_t *tokens, size_t count) {
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    kvstore_explanation_t explanation;
    memset(&explanation, 0xA5, sizeof explanation);
    explanation.struct_size = (uint32_t)sizeof explanation;
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_OK);
    CHECK(memchr(explanation.message, 0, sizeof explanation.message) != NULL);
    CHECK(strlen(explanation.message) > 20);
    return explanation;
}

static void explain_a_miss(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 320), *changed = make_tokens(1, 320);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_explanation_t found = explain(ns, tokens, 320);
    kvstore_prompt_t front;
    CHECK_EQ(found.cause, KVSTORE_CAUSE_NOTHING_STORED);
    CHECK_EQ(found.blocks_asked, 20);
    offload_prompt(ns, &shape, tokens, 20, 1);
    flush_store(store);

    found = explain(ns, tokens, 320);
    CHECK_EQ(found.cause, KVSTORE_CAUSE_STORED);
    CHECK_EQ(found.tokens_matched, 320);
    CHECK_EQ(found.elsewhere_token, UINT64_MAX);

    changed[100] ^= 0x5555; /* one token in block 6 */
    found = explain(ns, changed, 320);
    CHECK_EQ(found.cause, KVSTORE_CAUSE_EDITED);
    CHECK_EQ(found.blocks_matched, 6);
    CHECK_EQ(found.tokens_matched, 96);
    CHECK_EQ(found.divergence_token, 100);
    CHECK_EQ(found.prompt_tokens, 1);
    CHECK_EQ(found.stored_tokens, 1);
    CHECK_EQ(found.tokens_lost, 219);
    CHECK_EQ(found.branch_count, 1);
    CHECK(found.nearest_run != 0);
    CHECK_EQ(found.nearest_position, 6);
    CHECK_EQ(found.nearest_token_count, 8);
    CHECK_EQ(found.nearest_tokens[0], tokens[100]);
    CHECK(strstr(found.message, "edited") != NULL);

    front = prompt_of(tokens, 160);
    CHECK_STATUS(kvstore_forget(ns, &front, NULL), KVSTORE_OK);
    found = explain(ns, tokens, 320);
    CHECK_EQ(found.cause, KVSTORE_CAUSE_FORGOTTEN);
    CHECK_EQ(found.blocks_matched, 9);
    CHECK(found.left_nanoseconds > UINT64_C(1700000000000000000));
    close_store(store);
    free(tokens);
    free(changed);
}

static void explain_another_identity(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape), *other, *salted;
    kvstore_namespace_config_t config;
    kvstore_explanation_t found;
    uint32_t id;
    CHECK_STATUS(kvstore_namespace_id(ns, &id), KVSTORE_OK);
    offload_prompt(ns, &shape, tokens, 10, 1);
    flush_store(store);
    namespace_config(&shape, &config);
    config.adapter_digest.data = "lora";
    config.adapter_digest.length = 4;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &other), KVSTORE_OK);
    found = explain(other, tokens, 160);
    CHECK_EQ(found.cause, KVSTORE_CAUSE_OTHER_NAMESPACE);
    CHECK_EQ(found.other_namespace, id);
    CHECK_EQ(found.other_tokens_matched, 160);
    CHECK(strstr(found.message, "adapter digest") != NULL);
    /* A tenant with a secret learns nothing of those without one. */
    config.salt.data = "secret";
    config.salt.length = 6;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &salted), KVSTORE_OK);
    found = explain(salted, tokens, 160);
    CHECK_EQ(found.cause, KVSTORE_CAUSE_NOTHING_STORED);
    CHECK_EQ(found.other_namespace, 0);
    CHECK_EQ(found.branch_count, 0);
    close_store(store);
    free(tokens);
}

static void explain_refuses_bad_arguments(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 32);
    kvstore_prompt_t prompt = prompt_of(tokens, 32);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_explanation_t explanation;
    memset(&explanation, 0, sizeof explanation);
    explanation.struct_size = (uint32_t)sizeof explanation;
    CHECK_STATUS(kvstore_explain(NULL, &prompt, 0, &explanation), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_explain(ns, NULL, 0, &explanation), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_explain(ns, &prompt, 1, &explanation), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    explanation.struct_size = 8;
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_E_INVALID_ARGUMENT);
    explanation.struct_size = (uint32_t)sizeof explanation;
    prompt.token_count = 0;
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_E_INVALID_ARGUMENT);
    prompt.tokens = NULL;
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_E_INVALID_ARGUMENT);
    prompt = prompt_of(tokens, 32);
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK);
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(tokens);
}

static void metrics_text(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t length = 0, again = 0;
    char *text;
    offload_prompt(ns, &shape, tokens, 10, 1);
    flush_store(store);
    CHECK_STATUS(kvstore_metrics_text(store, NULL, 0, &length), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK(length > 1000);
    text = (char *)malloc(length + 4096);
    CHECK(text != NULL);
    CHECK_STATUS(kvstore_metrics_text(store, text, 10, &again), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_STATUS(kvstore_metrics_text(store, text, length + 4096, &again), KVSTORE_OK);
    CHECK_EQ(strlen(text), again);
    CHECK(strstr(text, "\nkvstore_offloaded_blocks_total 10\n") != NULL);
    CHECK(strstr(text, "\n# TYPE kvstore_restore_seconds histogram\n") != NULL);
    CHECK(text[again - 1] == '\n');
    CHECK_STATUS(kvstore_metrics_text(store, text, 4096, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_metrics_text(store, NULL, 4096, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_metrics_text(NULL, text, 4096, &again), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(text);
    free(tokens);
}

static void sessions(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 320);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_session_t *session = NULL, *second = NULL;
    kvstore_match_t match = match_zero();
    uint64_t id = 0, second_id = 0, step = 0, blocks = 0;
    char long_name[66];
    CHECK_STATUS(kvstore_session_begin(ns, "agent 7", &session, &id), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_begin(ns, NULL, &second, &second_id), KVSTORE_OK);
    CHECK(id != 0 && second_id > id);
    CHECK_STATUS(kvstore_session_step(session, UINT64_MAX, &step), KVSTORE_MISS);
    CHECK_STATUS(kvstore_session_match(session, &prompt, 0, 0, &match), KVSTORE_MISS);
    CHECK_STATUS(kvstore_session_touch(session, &blocks), KVSTORE_MISS);
    offload_prompt(ns, &shape, tokens, 10, 1);
    CHECK_STATUS(kvstore_session_step(session, 160, &step), KVSTORE_OK);
    CHECK_EQ(step, 1);
    prompt = prompt_of(tokens, 320);
    CHECK_STATUS(kvstore_session_match(session, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.tokens_matched, 160);
    CHECK(match.lease != 0);
    CHECK_STATUS(kvstore_session_step(session, UINT64_MAX, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_touch(session, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 10);
    CHECK_STATUS(kvstore_session_set_ttl(session, UINT64_C(3600000000000), &blocks), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_set_ttl(session, 0, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_end(session), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_set_ttl(session, 1, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_session_end(session), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_session_step(session, 0, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_session_end(NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_begin(ns, "\xff", &session, NULL), KVSTORE_E_INVALID_ARGUMENT);
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    CHECK_STATUS(kvstore_session_begin(ns, long_name, &session, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK(strstr(kvstore_last_error_message(), "session's name has at most 64 bytes") != NULL);
    CHECK_STATUS(kvstore_session_begin(ns, long_name + 1, &session, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_end(session), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_begin(ns, "x", NULL, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_session_begin(NULL, "x", &session, NULL), KVSTORE_E_BAD_HANDLE);
    /* The handle of a session ends with its store. */
    close_store(store);
    CHECK_STATUS(kvstore_session_match(second, &prompt, 0, 0, &match), KVSTORE_E_BAD_HANDLE);
    free(tokens);
}

const test_case_t see_cases[] = {
    {"metrics_text", metrics_text},
    {"sessions", sessions},
    {"explain_a_miss", explain_a_miss},
    {"explain_another_identity", explain_another_identity},
    {"explain_refuses_bad_arguments", explain_refuses_bad_arguments},
    {NULL, NULL},
};
