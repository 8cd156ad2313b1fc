/* blipline-llm - runs the language model. Read llm_worker/llm_worker.c next. */
#include "llm_worker/llm_selftest.h"
#include "llm_worker/llm_worker.h"

int main(int argc, char **argv)
{
    struct llm_conf conf;
    const struct worker_program program = {.name = "blipline-llm",
                                           .what = "BLIP-2 language model worker",
                                           .stage = STAGE_LLM,
                                           .table = llm_conf_table,
                                           .conf = &conf,
                                           .common = &conf.common,
                                           .selftest = llm_selftest,
                                           .check = llm_worker_check,
                                           .open = llm_worker_open,
                                           .run = llm_worker_run,
                                           .free = llm_worker_free};

    return worker_main(&program, argc, argv);
}
