/* Seeing inside through the C interface: why a prompt missed. */
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
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK);
    CHECK_STATUS(kvstore_explain(ns, &prompt, 0, &explanation), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(tokens);
}

const test_case_t see_cases[] = {
    {"explain_a_miss", explain_a_miss},
    {"explain_another_identity", explain_another_identity},
    {"explain_refuses_bad_arguments", explain_refuses_bad_arguments},
    {NULL, NULL},
};
