/* cmd_devices.c - `blipline devices`: the CPU and GPUs of this machine. */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "console/answer.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "local/devices.h"

struct devices_options {
    const char *cuda_library;
    bool json;
};

static const struct cli_option options[] = {
    {"cuda-library", 0, CLI_TEXT, offsetof(struct devices_options, cuda_library), "FILE",
     "the CUDA operators (default: libblipline-cuda.so beside the programs, or in ../lib/blipline)", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct devices_options, json), NULL,
     "print one JSON object instead of the lines (blipline help json)", 0, 0, NULL},
    {0},
};

static const char *or_unknown(const char *text)
{
    return *text ? text : "unknown";
}

/* The name that --device takes. */
static const char *name_of(const struct device_gpu *g, int number, char *ret, size_t size)
{
    if (g->uuid[0])
        (void)snprintf(ret, size, "%s", g->uuid);
    else
        (void)snprintf(ret, size, "cuda:%d", number);
    return ret;
}

static void print_words(const struct devices *d, const struct device_choice *chosen)
{
    char name[DEVICE_NAME_SIZE];

    printf("cpu: %s, %s, %d thread%s\n", or_unknown(d->cpu), d->isa[0] ? d->isa : "no avx2", d->n_threads,
           d->n_threads == 1 ? "" : "s");
    for (int i = 0; i < d->n_gpus; i++)
        printf("%s: %s at %s\n", name_of(&d->gpus[i], i, name, sizeof(name)), or_unknown(d->gpus[i].model),
               d->gpus[i].bus);
    if (d->n_visible >= 0)
        printf("CUDA_VISIBLE_DEVICES shows %d to the workers: cuda:0 is the first of them\n", d->n_visible);
    if (d->n_gpus == 0 && !d->is_elsewhere)
        printf("no GPU%s\n", d->driver[0] ? ", but NVIDIA's driver is loaded" : ", or NVIDIA's driver is not loaded");
    else
        printf("NVIDIA's driver: %s\n", or_unknown(d->driver));
    printf("CUDA operators: %s%s\n", d->library[0] ? d->library : "no libblipline-cuda.so ",
           d->library[0] ? "" : d->library_places);
    if (d->n_gpus || d->has_mps)
        printf("MPS: %s\n", d->has_mps ? "running" : "not running; the workers of a GPU take turns");
    printf("--device auto:");
    for (int i = 0; i < chosen->n; i++)
        printf("%s%s", i ? "," : " ", chosen->names[i]);
    putchar('\n');
}

static int print_json(const struct devices *d, const struct device_choice *chosen)
{
    json_t *gpus = json_array(), *names = json_array(), *all;

    for (int i = 0; i < d->n_gpus; i++)
        (void)json_array_append_new(gpus,
                                    json_pack("{s:o, s:o, s:s}", "uuid", answer_text_or_null(d->gpus[i].uuid), "model",
                                              answer_text_or_null(d->gpus[i].model), "bus", d->gpus[i].bus));
    for (int i = 0; i < chosen->n; i++)
        (void)json_array_append_new(names, json_string(chosen->names[i]));
    all =
        json_pack("{s:{s:o, s:s, s:i}, s:o, s:o, s:o, s:o, s:b, s:o}", "cpu", "model", answer_text_or_null(d->cpu),
                  "isa", d->isa, "threads", d->n_threads, "gpus", gpus, "visible",
                  d->n_visible < 0 ? json_null() : json_integer(d->n_visible), "driver", answer_text_or_null(d->driver),
                  "cuda_library", answer_text_or_null(d->library), "mps", d->has_mps, "auto", names);
    if (!all)
        return -ENOMEM;
    answer_print("devices", all, 0);
    return 0;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct devices_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o), rc = 0;
    static struct devices have; /* large for a stack */
    static struct device_choice chosen;
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    devices_find(o.cuda_library, &have);
    rc = devices_choose(&have, "auto", o.cuda_library, &chosen, &err);
    if (rc == 0 && o.json)
        rc = print_json(&have, &chosen);
    else if (rc == 0)
        print_words(&have, &chosen);
    if (rc == 0 && fflush(stdout) != 0)
        rc = err_set(&err, -errno, "standard output: %s", strerror(errno));
    if (rc < 0)
        cli_error("devices: %s", err.text[0] ? err.text : strerror(-rc));
    return rc < 0 ? cli_exit_of(rc) : CLI_EXIT_OK;
}

const struct cli_command cmd_devices = {
    .name = "devices",
    .line = "list the CPU and the GPUs of this machine",
    .usage = "[--json]",
    .about = HELP_DEVICES,
    .examples = HELP_DEVICES_EXAMPLES,
    .options = options,
    .run = run,
};
