/* blipline-qformer - runs the Q-Former. Read qformer_worker/qformer_worker.c next. */
#include "qformer_worker/qformer_selftest.h"
#include "qformer_worker/qformer_worker.h"

int main(int argc, char **argv)
{
    struct qformer_conf conf;
    const struct worker_program program = {.name = "blipline-qformer",
                                           .what = "BLIP-2 Q-Former worker",
                                           .stage = STAGE_QFORMER,
                                           .table = qformer_conf_table,
                                           .conf = &conf,
                                           .common = &conf.common,
                                           .selftest = qformer_selftest,
                                           .open = qformer_worker_open,
                                           .run = qformer_worker_run,
                                           .free = qformer_worker_free};

    return worker_main(&program, argc, argv);
}
