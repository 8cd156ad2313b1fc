/* blipline-encoder - decode pictures, run the frozen image encoder. Read encoder_worker/encoder_worker.c next. */
#include "encoder_worker/decoder.h"
#include "encoder_worker/encoder_selftest.h"
#include "encoder_worker/encoder_worker.h"

int main(int argc, char **argv)
{
    struct encoder_conf conf;
    const struct worker_program program = {.name = "blipline-encoder",
                                           .what = "BLIP-2 image encoder worker",
                                           .stage = STAGE_ENCODE,
                                           .table = encoder_conf_table,
                                           .conf = &conf,
                                           .common = &conf.common,
                                           .selftest = encoder_selftest,
                                           .open = encoder_worker_open,
                                           .run = encoder_worker_run,
                                           .free = encoder_worker_free};

    if (decoder_is_asked_for(argc, argv))
        return decoder_serve();
    return worker_main(&program, argc, argv);
}
