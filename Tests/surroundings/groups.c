/* What a store's surroundings do to it. Each file of cases is one kind of surroundings. */
#include "surroundings.h"

const char *const suite_name = "surroundings";

#define CASES(EACH)          \
    EACH(capacity_end_cases) \
    EACH(container_cases)    \
    EACH(clock_cases)        \
    EACH(slow_copy_cases)    \
    EACH(flush_cases)        \
    EACH(owner_cases)        \
    EACH(memory_cases)       \
    EACH(thread_start_cases) \
    EACH(wide_tree_cases)    \
    EACH(forget_cases)       \
    EACH(tenant_cases)       \
    EACH(folder_cases)       \
    EACH(file_cases)         \
    EACH(archive_cases)      \
    EACH(stopped_cases)      \
    EACH(refused_cases)      \
    EACH(refusal_cases)      \
    EACH(disk_cases)

#define ROLES(EACH)          \
    EACH(peer_roles)         \
    EACH(container_roles)    \
    EACH(clock_roles)        \
    EACH(surroundings_roles) \
    EACH(owner_roles)        \
    EACH(memory_roles)       \
    EACH(tenant_roles)       \
    EACH(thread_start_roles) \
    EACH(folder_roles)       \
    EACH(archive_roles)      \
    EACH(stopped_roles)      \
    EACH(refused_roles)      \
    EACH(disk_roles)

#define DECLARE_CASES(name) extern const test_case_t name[];
#define DECLARE_ROLES(name) extern const child_role_t name[];
#define LIST(name) name,

CASES(DECLARE_CASES)
ROLES(DECLARE_ROLES)

const test_case_t *const case_groups[] = {CASES(LIST) NULL};
const child_role_t *const role_groups[] = {ROLES(LIST) NULL};
