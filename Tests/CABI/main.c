/* Tests of the C interface against an installed libkvstore. Runs all cases, or those whose name holds the
 * argument: `cabi_tests [--list] [NAME]`. One line a case; exit status 1 if one failed. */
#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>

#define CASE_SECONDS_MAX 120

static const test_case_t *find_case(const char *name) {
    size_t g;
    const test_case_t *c;
    for (g = 0; case_groups[g] != NULL; g++)
        for (c = case_groups[g]; c->name != NULL; c++)
            if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static const child_role_t *find_role(const char *name) {
    size_t g;
    const child_role_t *role;
    for (g = 0; role_groups[g] != NULL; g++)
        for (role = role_groups[g]; role->name != NULL; role++)
            if (strcmp(role->name, name) == 0) return role;
    return NULL;
}

static void remove_tree(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    char child[4096];
    if (folder != NULL) {
        while ((entry = readdir(folder)) != NULL) {
            struct stat info;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
            if ((size_t)snprintf(child, sizeof child, "%s/%s", path, entry->d_name) >= sizeof child) continue;
            if (lstat(child, &info) == 0 && S_ISDIR(info.st_mode)) {
                (void)chmod(child, 0700);
                remove_tree(child);
            } else {
                (void)unlink(child);
            }
        }
        closedir(folder);
    }
    (void)rmdir(path);
}

/* Runs one case in a process of its own; returns its exit status, or 128 + signal. */
static int run_case(const char *name) {
    const char *base = getenv("TMPDIR");
    char folder[4096];
    pid_t pid;
    int status;
    snprintf(folder, sizeof folder, "%s/kvstore-cabi-XXXXXX", base && base[0] ? base : "/tmp");
    if (mkdtemp(folder) == NULL) {
        fprintf(stderr, "mkdtemp %s: %s\n", folder, strerror(errno));
        return 1;
    }
    fflush(NULL);
    pid = fork();
    if (pid < 0) return 1;
    if (pid == 0) {
        (void)setpgid(0, 0); /* so that a hung case goes down with all that it started */
        execl(test_program, test_program, "--case", name, folder, (char *)NULL);
        _exit(126);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    (void)kill(-pid, SIGKILL);
    remove_tree(folder);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_all(const char *filter, bool list) {
    size_t g, passed = 0, failed = 0, skipped = 0;
    const test_case_t *c;
    for (g = 0; case_groups[g] != NULL; g++)
        for (c = case_groups[g]; c->name != NULL; c++) {
            uint64_t start = now_nanoseconds(), milliseconds;
            int status;
            if (filter != NULL && strstr(c->name, filter) == NULL) continue;
            if (list) {
                puts(c->name);
                continue;
            }
            status = run_case(c->name);
            milliseconds = (now_nanoseconds() - start) / 1000000;
            if (status == 0) {
                passed++;
                printf("ok    %s (%" PRIu64 " ms)\n", c->name, milliseconds);
            } else if (status == 77) {
                skipped++;
                printf("skip  %s\n", c->name);
            } else {
                failed++;
                if (status == 128 + SIGALRM)
                    printf("FAIL  %s (not done after %d s)\n", c->name, CASE_SECONDS_MAX);
                else if (status > 128)
                    printf("FAIL  %s (killed by signal %d)\n", c->name, status - 128);
                else
                    printf("FAIL  %s (%" PRIu64 " ms)\n", c->name, milliseconds);
            }
            fflush(stdout);
        }
    if (!list)
        printf("%s: %zu of %zu cases passed (%zu failed, %zu skipped)\n", suite_name, passed,
               passed + failed + skipped, failed, skipped);
    return failed == 0 && (list || passed > 0) ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *filter = NULL;
    bool list = false;
    int i;
    char *resolved = realpath("/proc/self/exe", NULL);
    test_program = resolved ? resolved : argv[0];
    if (argc == 4 && strcmp(argv[1], "--case") == 0) {
        const test_case_t *c = find_case(argv[2]);
        if (c == NULL) return 126;
        test_dir = argv[3];
        (void)alarm(CASE_SECONDS_MAX);
        c->run();
        fflush(NULL);
        return 0;
    }
    if (argc >= 4 && strcmp(argv[1], "--role") == 0) {
        const child_role_t *role = find_role(argv[2]);
        if (role == NULL) return 126;
        test_dir = argv[3];
        (void)alarm(CASE_SECONDS_MAX);
        return role->run(argc - 4, argv + 4);
    }
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            puts("usage: cabi_tests [--list] [NAME]\nRuns the cases whose name holds NAME; all without it.");
            return 0;
        }
        if (strcmp(argv[i], "--list") == 0)
            list = true;
        else
            filter = argv[i];
    }
    return run_all(filter, list);
}
