/* All cases of the C interface, in the order in which they run. */
#include "harness.h"

const char *const suite_name = "C interface";

const test_case_t *const case_groups[] = {
    library_cases, namespace_cases, round_trip_cases, transfer_cases, miss_cases, capacity_cases, lookup_cases,
    digest_cases, section_cases, keep_cases, bad_config_cases, bad_transfer_cases, thread_cases, process_cases,
    operation_cases, loan_cases, sharing_cases, scheduler_cases, see_cases, device_cases, NULL};

const child_role_t *const role_groups[] = {process_roles, peer_roles, NULL};
