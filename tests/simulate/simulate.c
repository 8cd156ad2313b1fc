/* Runs the broker's core in simulated worlds full of faults. A seed gives the same world everywhere.
 *
 *     simulate [--seeds N] [--first S] [--verbose]
 *
 * Fails if a seed fails, if 100 seeds or more never inject some fault, or if a planted bug goes unnoticed. */
#include "tests/simulate/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLANTED_SEEDS = 3000 /* enough for the rarest bug from any first seed */, ALL_FAULTS_FROM_SEEDS = 100 };

static const char *const class_names[N_CLASSES] = {"hello",  "credit", "heartbeat", "result", "failure",
                                                   "return", "bye",    "answer",    "work"};
static const char *const net_names[N_NET_FAULTS] = {"lost", "delayed", "doubled", "reordered"};
static const char *const fault_names[N_FAULTS] = {
    [FAULT_WORKER_CRASH] = "worker crash",
    [FAULT_WORKER_HANG] = "worker hangs, resumes",
    [FAULT_WORKER_STUCK] = "worker stuck, heartbeats",
    [FAULT_WORKER_SLOW] = "slow worker",
    [FAULT_WORKER_DRAIN] = "worker drains",
    [FAULT_WORKER_RETURN] = "lease returned",
    [FAULT_WORKER_UNSEEN] = "worker cannot see pictures",
    [FAULT_WORKER_RECONNECT] = "worker reconnects",
    [FAULT_WORKER_LOST] = "its connection is lost",
    [FAULT_VISITOR] = "visitor",
    [FAULT_FOREIGN_LEASE] = "peer speaks of others' leases",
    [FAULT_WORKER_FAILURE] = "transient failure",
    [FAULT_WORKER_BAD_ROWS] = "result of wrong length",
    [FAULT_WORKER_LIAR] = "worker fails everything",
    [FAULT_TENSOR_REFUSED] = "tensor is refused",
    [FAULT_WORKER_STALLED] = "worker is cut off",
    [FAULT_WORKER_WRONG_MODEL] = "worker of another model",
    [FAULT_STALE_RESULT] = "stale result",
    [FAULT_POISON_KILLS] = "item kills its worker",
    [FAULT_POISON_FAILS] = "item fails its unit",
    [FAULT_ITEM_ERROR] = "item with an error",
    [FAULT_PAYLOAD_LOST] = "tensors lost",
    [FAULT_BROKER_CRASH] = "broker crash",
    [FAULT_BROKER_SHUTDOWN] = "broker shutdown",
    [FAULT_BROKER_STOPPED] = "broker stopped, goes on",
    [FAULT_NONSENSE] = "invalid job events",
    [FAULT_COMMIT_CUT] = "crash before a transaction",
    [FAULT_ANSWER_CUT] = "crash before its answer",
    [FAULT_DISK_FULL] = "disk full",
    [FAULT_LATE_UNITS] = "late units",
    [FAULT_JOB_STOP] = "job stopped, started",
    [FAULT_JOB_PRIORITY] = "a job gets another priority",
    [FAULT_JOB_CLOSED] = "job closed, opened again",
    [FAULT_JOB_CANCELLED] = "job cancelled",
    [FAULT_JOB_RETRY] = "failed items retried",
    [FAULT_RETRY_CUT] = "crash during a retry",
    [FAULT_CLIENT_GONE] = "client vanishes half-way",
    [FAULT_JOB_FAILED] = "store of a job fails",
    [FAULT_UNSEALED] = "units after the seal",
    [FAULT_DONE_EXTENDED] = "units for a job that is done",
    [FAULT_DONE_REOPENED] = "done job opened again",
    [FAULT_IDLE_WORKER] = "idle worker gets work later",
    [FAULT_SOURCE_GONE] = "source gone for a while",
    [FAULT_SURGE] = "failures surge",
    [FAULT_ITEMS_AGAIN] = "items to do again",
};

static const char *const bug_names[CORE_N_BUGS] = {
    [CORE_BUG_SKIP_FENCE] = "stale results are taken",
    [CORE_BUG_LEASE_OF_ANY_PEER] = "a lease may be ended by another peer",
    [CORE_BUG_LEASE_OF_ANY_EPOCH] = "a lease may be ended in another epoch",
    [CORE_BUG_HEARTBEAT_EXTENDS_ALL] = "a heartbeat extends leases it does not name",
    [CORE_BUG_HEARTBEAT_OF_ANY_PEER] = "a heartbeat extends leases of others",
    [CORE_BUG_HEARTBEAT_OF_ANY_EPOCH] = "a heartbeat of another epoch extends leases",
    [CORE_BUG_SHORT_RESULT_TAKEN] = "a result of the wrong length is taken",
    [CORE_BUG_BAD_RESULT_UNBLAMED] = "a result of the wrong length is no failure",
    [CORE_BUG_FAILURE_UNBLAMED] = "a FAILURE is no failure",
    [CORE_BUG_RETURN_BLAMED] = "RETURN costs an attempt",
    [CORE_BUG_RETURNS_WITHOUT_END] = "any number of RETURNs is without blame",
    [CORE_BUG_DRAIN_BLAMED] = "BYE costs attempts",
    [CORE_BUG_DEATH_UNBLAMED] = "a worker's death costs nothing",
    [CORE_BUG_EXPIRY_UNBLAMED] = "an expired lease costs nothing",
    [CORE_BUG_EXPIRY_AT_FIRST_NODE] = "leases that expire are counted at the first node",
    [CORE_BUG_TRIAL_BLAMED] = "what expires on trial is blamed",
    [CORE_BUG_TRIAL_WITHOUT_END] = "a worker stays on trial whatever it ends",
    [CORE_BUG_TRIAL_IN_COMPANY] = "a worker on trial gets several leases",
    [CORE_BUG_REST_SKIPPED] = "a worker on trial does not rest",
    [CORE_BUG_BLAMED_TWICE] = "one loss blames a subunit twice",
    [CORE_BUG_CONNECTION_BLAMED] = "a lost connection is a failure",
    [CORE_BUG_LOST_LEASES_STAY] = "leases that did not reach their worker stay its own",
    [CORE_BUG_OLD_PEER_STAYS] = "a worker that reconnects keeps its old connection, too",
    [CORE_BUG_SHUTDOWN_BLAMES_LOST] = "shutdown blames what lost workers hold",
    [CORE_BUG_SHUTDOWN_GRANTS] = "leases are granted during shutdown",
    [CORE_BUG_DRAINED_WITH_LEASES] = "drained with leases outstanding",
    [CORE_BUG_DRAINED_WITH_COMMITS] = "drained with commits outstanding",
    [CORE_BUG_STOP_BLAMED] = "a broker that was stopped lets leases expire",
    [CORE_BUG_ISOLATION_IN_COMPANY] = "a death with several leases counts as isolation",
    [CORE_BUG_NEVER_EXCLUSIVE] = "a subunit that failed shares its worker",
    [CORE_BUG_EXCLUSIVE_IN_NAME] = "others join an exclusive lease",
    [CORE_BUG_WINDOW_ITEMS_IGNORED] = "a worker gets more items than its window",
    [CORE_BUG_WINDOW_BYTES_IGNORED] = "a worker gets more bytes than its window",
    [CORE_BUG_INPUT_BYTES_FORGOTTEN] = "bytes of inputs are not held",
    [CORE_BUG_WINDOW_NOT_CUT] = "a window may be of any size",
    [CORE_BUG_CREDIT_IGNORED] = "a window never changes",
    [CORE_BUG_DRAINING_GETS_WORK] = "a worker that drains gets work",
    [CORE_BUG_SILENT_GETS_WORK] = "a silent worker gets work",
    [CORE_BUG_SILENT_STAYS] = "a silent worker is never forgotten",
    [CORE_BUG_FINGERPRINT_AT_FIRST_NODE] = "fingerprints count at first nodes only",
    [CORE_BUG_IDLE_REFUSED] = "a worker that no job wants is refused",
    [CORE_BUG_IDLE_TIMES_OUT] = "heartbeats of a worker that no job wants do not count",
    [CORE_BUG_WORKERS_WITHOUT_LIMIT] = "any number of workers is welcome",
    [CORE_BUG_KINDS_WITHOUT_LIMIT] = "any number of kinds of workers is welcome",
    [CORE_BUG_LEASES_WITHOUT_LIMIT] = "a worker gets any number of leases",
    [CORE_BUG_KEEP_RESERVATION_ON_SPLIT] = "a split keeps its reservation",
    [CORE_BUG_IGNORE_MEMORY] = "subunits start whatever memory is left",
    [CORE_BUG_IGNORE_ROW_LIMIT] = "rows that wait for a commit are not bounded",
    [CORE_BUG_FREE_AFTER_FIRST_CONSUMER] = "tensors go after the first consumer",
    [CORE_BUG_RETRY_STARTS_OVER] = "a retry throws away what is done",
    [CORE_BUG_TENSOR_LOSS_BLAMED] = "lost tensors cost an attempt",
    [CORE_BUG_DROP_TWICE] = "payloads are dropped twice",
    [CORE_BUG_ERRORS_GO_ON] = "items with errors go to the next node",
    [CORE_BUG_NEVER_SPLIT] = "a failing unit is never split",
    [CORE_BUG_QUARANTINE_EARLY] = "an item is quarantined an attempt too early",
    [CORE_BUG_FORGET_ATTEMPTS] = "failed attempts are not made durable",
    [CORE_BUG_FORGET_SUBUNITS] = "the subunits of a unit are not made durable",
    [CORE_BUG_IGNORE_ATTEMPTS] = "attempts of an earlier life do not count",
    [CORE_BUG_IGNORE_SUBUNITS] = "a unit that was cut starts whole",
    [CORE_BUG_COMMIT_TWICE] = "commit is sent twice",
    [CORE_BUG_STALE_LOAD] = "a load that a commit overtook is taken",
    [CORE_BUG_DONE_UNSEALED] = "a job is done before it is sealed",
    [CORE_BUG_OPENED_SEALED] = "a job is sealed when it is opened",
    [CORE_BUG_SEALED_FOR_GOOD] = "new units do not un-seal a job",
    [CORE_BUG_DONE_FOR_GOOD] = "new units do not wake a job that was done",
    [CORE_BUG_CLOSED_EARLY] = "a job is closed with answers outstanding",
    [CORE_BUG_CLOSE_KEEPS_LEASES] = "leases of a closed job go on",
    [CORE_BUG_FAILED_GOES_ON] = "a job that failed goes on",
    [CORE_BUG_FAILED_AWAITS_ANSWERS] = "a job that failed waits for answers",
    [CORE_BUG_OTHER_JOB_FAILS] = "the store of one job fails another one",
    [CORE_BUG_PRIORITY_IGNORED] = "all jobs get the same share of workers",
    [CORE_BUG_PRIORITY_FIXED] = "a new priority changes nothing",
    [CORE_BUG_CATCHES_UP] = "a job that was idle gets what the others had meanwhile",
    [CORE_BUG_DISK_FULL_IGNORED] = "only a commit that fails blocks a job",
    [CORE_BUG_STOPPED_STARTS] = "a stopped job starts units",
    [CORE_BUG_STOPPED_EARLY] = "a job is called stopped with leases outstanding",
    [CORE_BUG_BLOCKED_STARTS] = "a job without disk starts units",
    [CORE_BUG_ERRORS_NOT_FAILED] = "only quarantined items are counted as failed",
    [CORE_BUG_NEVER_PAUSE] = "failures surge and nothing happens",
    [CORE_BUG_FORGET_PUT_BACK] = "what a surge puts back is forgotten",
    [CORE_BUG_NEVER_STALL] = "a lease may last for ever",
    [CORE_BUG_CUT_OFF_COMES_BACK] = "a worker that was cut off may come back",
    [CORE_BUG_NEVER_BENCH] = "a worker that fails everything is not slowed",
    [CORE_BUG_BLAME_ALWAYS] = "units are blamed by a worker that fails everything",
    [CORE_BUG_SAME_WORKER_AGAIN] = "what failed goes to the same worker again",
    [CORE_BUG_UNSEEN_BLAMED] = "a worker that cannot see pictures is blamed",
    [CORE_BUG_UNSEEN_ANYWHERE] = "a node that reads no pictures cannot see them",
    [CORE_BUG_UNSEEN_GETS_MORE] = "a worker that cannot see pictures gets more of them",
    [CORE_BUG_UNSEEN_REST_FIXED] = "its rests do not grow",
    [CORE_BUG_STOP_SEALS] = "a submission that is cut off counts as complete",
    [CORE_BUG_AGAIN_WHILE_DONE] = "items to do again do not wake a job that was done",
    [CORE_BUG_MORE_AGAIN_FORGOTTEN] = "more items to do again of a unit in memory are forgotten",
    [CORE_BUG_DISK_OK_IGNORED] = "a job stays blocked once the disk has room",
    [CORE_BUG_REDO_ALL] = "all of a unit is done again",
};

static volatile uint64_t seed_now;

static void say_seed(int sig)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "simulate: seed %llu stopped here\n", (unsigned long long)seed_now);

    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        _exit(3);
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Print the table of faults. Returns how many kinds never happened. */
static uint32_t print_tally(const struct tally *t)
{
    uint32_t never = 0;

    printf("%llu steps, %llu units, %llu items; %llu splits, %llu quarantined (%llu of them by bad luck)\n\n",
           (unsigned long long)t->steps, (unsigned long long)t->units, (unsigned long long)t->items,
           (unsigned long long)t->splits, (unsigned long long)t->quarantined, (unsigned long long)t->unlucky);
    printf("%-28s", "messages");
    for (uint32_t f = 0; f < N_NET_FAULTS; f++)
        printf(" %10s", net_names[f]);
    putchar('\n');
    for (uint32_t c = 0; c < N_CLASSES; c++) {
        printf("  %-26s", class_names[c]);
        for (uint32_t f = 0; f < N_NET_FAULTS; f++) {
            printf(" %10llu", (unsigned long long)t->net[c][f]);
            never += t->net[c][f] == 0 &&
                     !(c == MSG_BYE && f == NET_REORDERED); /* BYE is the last message: none overtakes it */
        }
        putchar('\n');
    }
    printf("faults\n");
    for (uint32_t f = 0; f < N_FAULTS; f++) {
        printf("  %-26s %10llu\n", fault_names[f], (unsigned long long)t->faults[f]);
        never += t->faults[f] == 0;
    }
    return never;
}

/* The first seed before `end` that fails, or `end`. In a process of its own, since a world may abort. */
static uint64_t first_failure(uint64_t first, uint64_t end, enum core_bug bug, bool verbose)
{
    uint64_t *seed = mmap(NULL, sizeof(*seed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), failed = end;
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0 || seed == MAP_FAILED)
        abort();
    if (pid == 0) {
        struct tally t = {0};

        if (!verbose && !freopen("/dev/null", "w", stderr))
            _exit(3);
        signal(SIGABRT, SIG_DFL);
        for (*seed = first; *seed < end; ++*seed) {
            alarm(20);
            if (!world_run(*seed, bug, false, &t))
                _exit(1);
        }
        _exit(0);
    }
    if (waitpid(pid, &status, 0) == pid && status != 0)
        failed = *seed;
    munmap(seed, sizeof(*seed));
    return failed;
}

/* The first seed that fails with the bug and passes without it; 0: none. */
static uint64_t find_planted(enum core_bug bug, uint64_t first, bool verbose)
{
    const uint64_t end = first + PLANTED_SEEDS;

    for (uint64_t seed = first; (seed = first_failure(seed, end, bug, verbose)) < end; seed++)
        if (first_failure(seed, seed + 1, CORE_BUG_NONE, verbose) > seed)
            return seed;
    return 0;
}

/* How many planted bugs went unnoticed. */
static uint32_t hunt_planted(uint64_t first, bool verbose)
{
    uint32_t n_missed = 0;

    printf("planted bugs\n");
    for (enum core_bug bug = CORE_BUG_NONE + 1; bug < CORE_N_BUGS; bug++) {
        uint64_t seed = find_planted(bug, first, verbose);

        if (seed)
            printf("  %-54s found by seed %llu\n", bug_names[bug], (unsigned long long)seed);
        else
            printf("  %-54s not found in %d seeds\n", bug_names[bug], PLANTED_SEEDS);
        n_missed += seed == 0;
    }
    return n_missed;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "simulate: %s is not a number\n", text);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    struct tally t = {0};
    uint64_t n_seeds = 300, first = 1, n_failed = 0;
    bool verbose = false;
    uint32_t never, missed;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            n_seeds = number(argv[++i]);
        else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc)
            first = number(argv[++i]);
        else {
            fprintf(stderr, "usage: simulate [--seeds N] [--first S] [--verbose]\n");
            return 2;
        }
    }
    signal(SIGABRT, say_seed);
    for (seed_now = first; seed_now < first + n_seeds; seed_now++)
        n_failed += !world_run(seed_now, CORE_BUG_NONE, verbose, &t);
    printf("simulate: seeds %llu to %llu, %llu failed\n", (unsigned long long)first,
           (unsigned long long)(first + n_seeds - 1), (unsigned long long)n_failed);
    never = print_tally(&t);
    if (n_seeds < ALL_FAULTS_FROM_SEEDS)
        return n_failed ? 1 : 0;
    if (never)
        fprintf(stderr, "simulate: %u kinds of fault never happened\n", never);
    missed = hunt_planted(first, verbose);
    return n_failed || never || missed ? 1 : 0;
}
