/* What a store's surroundings do to it. Each file of cases is one kind of surroundings. */
#include "harness.h"

extern const test_case_t capacity_end_cases[], clock_cases[];
extern const child_role_t clock_roles[];

const char *const suite_name = "surroundings";

const test_case_t *const case_groups[] = {capacity_end_cases, clock_cases, NULL};

const child_role_t *const role_groups[] = {peer_roles, clock_roles, NULL};
