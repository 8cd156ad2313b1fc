/* core_bugs.h - mutations of the core: tests/simulate switches on one at a time and asserts that it is noticed.
 *
 * Who may call: broker/core*.c ask core_planted() where the bug would be; core_limits.bug names it. */
#ifndef BLIPLINE_BROKER_CORE_BUGS_H
#define BLIPLINE_BROKER_CORE_BUGS_H

enum core_bug {
    CORE_BUG_NONE = 0,
    CORE_BUG_SKIP_FENCE,                /* stale results are taken */
    CORE_BUG_LEASE_OF_ANY_PEER,         /* a lease may be ended by another peer */
    CORE_BUG_LEASE_OF_ANY_EPOCH,        /* a lease may be ended in another epoch */
    CORE_BUG_HEARTBEAT_EXTENDS_ALL,     /* a heartbeat extends leases it does not name */
    CORE_BUG_HEARTBEAT_OF_ANY_PEER,     /* a heartbeat extends leases of others */
    CORE_BUG_HEARTBEAT_OF_ANY_EPOCH,    /* a heartbeat of another epoch extends leases */
    CORE_BUG_SHORT_RESULT_TAKEN,        /* a result of the wrong length is taken */
    CORE_BUG_BAD_RESULT_UNBLAMED,       /* a result of the wrong length is no failure */
    CORE_BUG_FAILURE_UNBLAMED,          /* a FAILURE is no failure */
    CORE_BUG_RETURN_BLAMED,             /* RETURN costs an attempt */
    CORE_BUG_RETURNS_WITHOUT_END,       /* any number of RETURNs is without blame */
    CORE_BUG_DRAIN_BLAMED,              /* BYE costs attempts */
    CORE_BUG_DEATH_UNBLAMED,            /* a worker's death costs nothing */
    CORE_BUG_EXPIRY_UNBLAMED,           /* an expired lease costs nothing */
    CORE_BUG_EXPIRY_AT_FIRST_NODE,      /* leases that expire are counted at the first node */
    CORE_BUG_TRIAL_BLAMED,              /* what expires on trial is blamed */
    CORE_BUG_TRIAL_WITHOUT_END,         /* a worker stays on trial whatever it ends */
    CORE_BUG_TRIAL_IN_COMPANY,          /* a worker on trial gets several leases */
    CORE_BUG_REST_SKIPPED,              /* a worker on trial does not rest */
    CORE_BUG_BLAMED_TWICE,              /* one loss blames a subunit twice */
    CORE_BUG_CONNECTION_BLAMED,         /* a lost connection is a failure */
    CORE_BUG_LOST_LEASES_STAY,          /* leases that did not reach their worker stay its own */
    CORE_BUG_OLD_PEER_STAYS,            /* a worker that reconnects keeps its old connection, too */
    CORE_BUG_SHUTDOWN_BLAMES_LOST,      /* shutdown blames what lost workers hold */
    CORE_BUG_SHUTDOWN_GRANTS,           /* leases are granted during shutdown */
    CORE_BUG_DRAINED_WITH_LEASES,       /* drained with leases outstanding */
    CORE_BUG_DRAINED_WITH_COMMITS,      /* drained with commits outstanding */
    CORE_BUG_STOP_BLAMED,               /* a broker that was stopped lets leases expire */
    CORE_BUG_ISOLATION_IN_COMPANY,      /* a death with several leases counts as isolation */
    CORE_BUG_NEVER_EXCLUSIVE,           /* a subunit that failed shares its worker */
    CORE_BUG_EXCLUSIVE_IN_NAME,         /* others join an exclusive lease */
    CORE_BUG_WINDOW_ITEMS_IGNORED,      /* a worker gets more items than its window */
    CORE_BUG_WINDOW_BYTES_IGNORED,      /* a worker gets more bytes than its window */
    CORE_BUG_INPUT_BYTES_FORGOTTEN,     /* bytes of inputs are not held */
    CORE_BUG_WINDOW_NOT_CUT,            /* a window may be of any size */
    CORE_BUG_CREDIT_IGNORED,            /* a window never changes */
    CORE_BUG_DRAINING_GETS_WORK,        /* a worker that drains gets work */
    CORE_BUG_SILENT_GETS_WORK,          /* a silent worker gets work */
    CORE_BUG_SILENT_STAYS,              /* a silent worker is never forgotten */
    CORE_BUG_FINGERPRINT_AT_FIRST_NODE, /* fingerprints count at first nodes only */
    CORE_BUG_IDLE_REFUSED,              /* a worker that no job wants is refused */
    CORE_BUG_IDLE_TIMES_OUT,            /* heartbeats of a worker that no job wants do not count */
    CORE_BUG_WORKERS_WITHOUT_LIMIT,     /* any number of workers is welcome */
    CORE_BUG_KINDS_WITHOUT_LIMIT,       /* any number of kinds of workers is welcome */
    CORE_BUG_LEASES_WITHOUT_LIMIT,      /* a worker gets any number of leases */
    CORE_BUG_KEEP_RESERVATION_ON_SPLIT, /* a split keeps its reservation */
    CORE_BUG_IGNORE_MEMORY,             /* subunits start whatever memory is left */
    CORE_BUG_IGNORE_ROW_LIMIT,          /* rows that wait for a commit are not bounded */
    CORE_BUG_FREE_AFTER_FIRST_CONSUMER, /* tensors go after the first consumer */
    CORE_BUG_RETRY_STARTS_OVER,         /* a retry throws away what is done */
    CORE_BUG_TENSOR_LOSS_BLAMED,        /* lost tensors cost an attempt */
    CORE_BUG_DROP_TWICE,                /* payloads are dropped twice */
    CORE_BUG_ERRORS_GO_ON,              /* items with errors go to the next node */
    CORE_BUG_NEVER_SPLIT,               /* a failing unit is never split */
    CORE_BUG_QUARANTINE_EARLY,          /* an item is quarantined an attempt too early */
    CORE_BUG_FORGET_ATTEMPTS,           /* failed attempts are not made durable */
    CORE_BUG_FORGET_SUBUNITS,           /* the subunits of a unit are not made durable */
    CORE_BUG_IGNORE_ATTEMPTS,           /* attempts of an earlier life do not count */
    CORE_BUG_IGNORE_SUBUNITS,           /* a unit that was cut starts whole */
    CORE_BUG_COMMIT_TWICE,              /* commit is sent twice */
    CORE_BUG_STALE_LOAD,                /* a load that a commit overtook is taken */
    CORE_BUG_DONE_UNSEALED,             /* a job is done before it is sealed */
    CORE_BUG_OPENED_SEALED,             /* a job is sealed when it is opened */
    CORE_BUG_SEALED_FOR_GOOD,           /* new units do not un-seal a job */
    CORE_BUG_DONE_FOR_GOOD,             /* new units do not wake a job that was done */
    CORE_BUG_CLOSED_EARLY,              /* a job is closed with answers outstanding */
    CORE_BUG_CLOSE_KEEPS_LEASES,        /* leases of a closed job go on */
    CORE_BUG_FAILED_GOES_ON,            /* a job that failed goes on */
    CORE_BUG_FAILED_AWAITS_ANSWERS,     /* a job that failed waits for answers */
    CORE_BUG_OTHER_JOB_FAILS,           /* the store of one job fails another one */
    CORE_BUG_PRIORITY_IGNORED,          /* all jobs get the same share of workers */
    CORE_BUG_PRIORITY_FIXED,            /* a new priority changes nothing */
    CORE_BUG_CATCHES_UP,                /* a job that was idle gets what the others had meanwhile */
    CORE_BUG_DISK_FULL_IGNORED,         /* only a commit that fails blocks a job */
    CORE_BUG_STOPPED_STARTS,            /* a stopped job starts units */
    CORE_BUG_STOPPED_EARLY,             /* a job is called stopped with leases outstanding */
    CORE_BUG_BLOCKED_STARTS,            /* a job without disk starts units */
    CORE_BUG_ERRORS_NOT_FAILED,         /* only quarantined items are counted as failed */
    CORE_BUG_NEVER_PAUSE,               /* failures surge and nothing happens */
    CORE_BUG_FORGET_PUT_BACK,           /* what a surge puts back is forgotten */
    CORE_BUG_REDO_ALL,                  /* all of a unit is done again */
    CORE_BUG_NEVER_BENCH,               /* a worker that fails everything is not slowed */
    CORE_BUG_BLAME_ALWAYS,              /* units are blamed by a worker that fails everything */
    CORE_BUG_SAME_WORKER_AGAIN,         /* what failed goes to the same worker again */
    CORE_BUG_NEVER_STALL,               /* a lease may last for ever */
    CORE_BUG_CUT_OFF_COMES_BACK,        /* a worker that was cut off may come back */
    CORE_BUG_UNSEEN_BLAMED,             /* a worker that cannot see pictures is blamed */
    CORE_BUG_UNSEEN_ANYWHERE,           /* a node that reads no pictures cannot see them */
    CORE_BUG_UNSEEN_GETS_MORE,          /* a worker that cannot see pictures gets more of them */
    CORE_BUG_UNSEEN_REST_FIXED,         /* its rests do not grow */
    CORE_BUG_STOP_SEALS,                /* a submission that is cut off counts as complete */
    CORE_BUG_AGAIN_WHILE_DONE,          /* items to do again do not wake a job that was done */
    CORE_BUG_MORE_AGAIN_FORGOTTEN,      /* more items to do again of a unit in memory are forgotten */
    CORE_BUG_DISK_OK_IGNORED,           /* a job stays blocked once the disk has room */
    CORE_N_BUGS
};

#endif
