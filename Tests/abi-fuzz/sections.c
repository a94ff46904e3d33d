/* Calls of side sections. A section's bytes repeat the digest that it is found by, so that whatever comes back can be compared. */
#include "fuzz.h"

#include <string.h>

enum { section_bytes = 600 };

static void move(fuzzer_t *fuzzer, kvstore_namespace_t *section, const unsigned char *digest, size_t digest_bytes, bool restores) {
    unsigned char *data = (unsigned char *)guarded(fuzzer, section_bytes, 0);
    unsigned char *place = (unsigned char *)guarded(fuzzer, digest_bytes, 0);
    kvstore_prompt_t prompt;
    kvstore_transfer_t transfer;
    kvstore_span_t span;
    size_t i, length = 1 + (size_t)below(fuzzer, section_bytes);
    memcpy(place, digest, digest_bytes);
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.digests = place;
    prompt.digest_count = 1;
    for (i = 0; i < length && !restores; i++) data[i] = digest[i % digest_bytes];
    span.data = data;
    span.capacity = section_bytes;
    span.length = restores ? 0 : length;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.spans = &span;
    transfer.span_count = 1;
    if (!restores) {
        CALL(offload, section, &prompt, &transfer, NULL);
        return;
    }
    CALL(restore, section, &prompt, &transfer, NULL);
    if (fuzzer->status != KVSTORE_OK) return;
    for (i = 0; i < span.length; i++)
        if (data[i] != digest[i % digest_bytes]) return fail(fuzzer, "wrong bytes in a side section", (int64_t)i);
    atomic_fetch_add(&checked_blocks, 1);
}

void use_sections(fuzzer_t *fuzzer, kvstore_namespace_t *ns, const kvstore_prompt_t *prompt) {
    static const char *const names[4] = {"recurrent", "window", "", "\xff"};
    kvstore_namespace_t *section = NULL, *both[2];
    kvstore_match_t *matches = (kvstore_match_t *)guarded(fuzzer, 3 * sizeof *matches, 0);
    unsigned char *digest = (unsigned char *)guarded(fuzzer, 64, 0), *exact;
    size_t digest_bytes = 0, count = one_in(fuzzer, 50) ? (size_t)wild_number(fuzzer) : 1 + (size_t)below(fuzzer, 2);
    uint64_t blocks = one_in(fuzzer, 10) ? wild_number(fuzzer) : below(fuzzer, blocks_max);
    const char *name = names[one_in(fuzzer, 20) ? below(fuzzer, 4) : below(fuzzer, 2)];
    unsigned i;
    CALL(section_open, ns, one_in(fuzzer, 100) ? NULL : name, one_in(fuzzer, 50) ? wild_number(fuzzer) : section_bytes, KVSTORE_KEEP,
         one_in(fuzzer, 100) ? NULL : &section);
    if (section == NULL) return;
    both[0] = section;
    both[1] = one_in(fuzzer, 4) ? ns : section;
    for (i = 0; i < 3; i++) matches[i].struct_size = (uint32_t)(one_in(fuzzer, 50) ? wild_number(fuzzer) : sizeof *matches);
    CALL(match_sections, ns, both, count > 2 && count <= 1024 ? 2 : count, prompt,
         one_in(fuzzer, 50) ? (uint32_t)wild_number(fuzzer) : (uint32_t)below(fuzzer, 4), 1 + below(fuzzer, 20000000), matches);
    if (fuzzer->status >= 0 && matches[0].blocks_matched > blocks_max)
        fail(fuzzer, "more blocks matched than asked for", (int64_t)matches[0].blocks_matched);
    CALL(section_digest, one_in(fuzzer, 50) ? ns : section, prompt, blocks, digest, 64, one_in(fuzzer, 50) ? NULL : &digest_bytes);
    if (fuzzer->status == KVSTORE_OK && digest_bytes > 0) {
        exact = (unsigned char *)guarded(fuzzer, digest_bytes, 0);
        CALL(section_digest, section, prompt, blocks, exact, digest_bytes - one_in(fuzzer, 10), NULL);
        if (fuzzer->status == KVSTORE_OK && memcmp(exact, digest, digest_bytes) != 0) fail(fuzzer, "a digest changes", 0);
        move(fuzzer, section, digest, digest_bytes, one_in(fuzzer, 2));
    }
    CALL(namespace_close, section);
    remember(fuzzer, section);
}
