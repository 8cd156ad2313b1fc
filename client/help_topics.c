/* help_topics.c - the pages of `blipline help TOPIC` that belong to no single command. */
#include <stddef.h>
#include <string.h>

#include "client/commands.h"
#include "client/recipe.h"

static const char sources[] =
    "SOURCES\n\n"
    "A source of `blipline caption` is one of\n\n"
    "  a folder    every .jpg .jpeg .jpe .jfif .png .webp below it (in any case), in bytewise order of the paths;\n"
    "              hidden names are skipped, links to files are followed, links to folders are not\n"
    "  a file      that file, whatever its name\n"
    "  @list.txt   one path a line, relative to the list's folder or absolute; @- is standard input\n\n"
    "A folder or file whose name begins with @ is written ./@name. Several sources may be given; their items are\n"
    "numbered in that order. The key of an item is its path relative to its source, so keys need not be unique.\n"
    "A picture that cannot be used becomes an item with a reason (missing, unreadable, empty, too_large,\n"
    "unknown_format, unsupported, truncated, corrupt, too_many_pixels); it never stops the others.";

static const char store[] =
    "STORE\n\n"
    "A store is a folder with one LMDB environment (data.mdb, lock.mdb) and the file `owner`, which is locked while\n"
    "somebody writes. It holds the list of items, the state of the units they are worked on in, and one record an\n"
    "item: the caption with its log-probability and number of tokens, or the reason why there is none. Every row has\n"
    "a checksum.\n\n"
    "An item keeps its number for ever. Running `blipline caption` again on the same store goes on where it was:\n"
    "pictures that are new in the source get new numbers, records of pictures that vanished stay. A store remembers\n"
    "its recipe (prompt, number of tokens, model by fingerprint) and refuses another one.\n\n"
    "Any number of readers may use a store while it is being written: blipline export, get, stats, verify, or any\n"
    "program with LMDB and protobuf; examples/read_store.py is ten lines.";

static const char models[] =
    "MODELS\n\n"
    "--model names a folder in the layout of published checkpoints: config.json, preprocessor_config.json,\n"
    "tokenizer.json and model.safetensors (or shards with model.safetensors.index.json).\n\n"
    "  models/blip2-opt-demo     comes with the source; small, trained on drawings of pictograms, knows nothing else\n"
    "  Salesforce/blip2-opt-2.7b captions of real photographs; 15 GB:\n"
    "      huggingface-cli download Salesforce/blip2-opt-2.7b --exclude '*.bin' --local-dir blip2-opt-2.7b\n\n"
    "The whole checkpoint is checked before any work: a missing or unknown tensor, a wrong shape or an unsupported\n"
    "option is refused by its name. `blipline selftest DIR` compares every stage with reference data.";

static const char exit_codes[] = "EXIT CODES\n\n"
                                 "  0    everything is done\n"
                                 "  1    an error, said on standard error\n"
                                 "  2    the command line is wrong\n"
                                 "  3    everything is done, but some items have an error for a record\n"
                                 "  130  stopped by Ctrl-C (143: by SIGTERM); run the same command again to go on";

static const char resume[] =
    "RESUME\n\n"
    "Ctrl-C (or SIGTERM) stops `blipline caption`: work in hand is finished and committed, the programs it started\n"
    "end, and the command says how to go on. A second Ctrl-C ends them at once. Either way, and also after a crash or\n"
    "kill -9, run the same command again: what is committed is kept, the rest is done, and the export is byte by byte\n"
    "that of a run that was never interrupted.\n\n"
    "A worker or broker that dies is started again by itself; after five deaths within 30 s the command gives up and\n"
    "shows the end of the log.";

static int print_recipe(const char *name, FILE *out)
{
    for (const struct recipe_builtin *b = recipe_builtins; name && b->name; b++) {
        if (strcmp(b->name, name) == 0) {
            fputs(b->text, out);
            return CLI_EXIT_OK;
        }
    }
    if (!name) {
        recipe_print_help(out);
        return CLI_EXIT_OK;
    }
    cli_error("there is no built-in recipe %s (blipline help recipe lists them)", name);
    return CLI_EXIT_USAGE;
}

const struct help_topic help_topics[] = {
    {"sources", "what can be captioned", sources, NULL},
    {"recipe", "what can be computed: recipes, their keys, and those that are built in", NULL, print_recipe},
    {"store", "what a store is, and who may read it", store, NULL},
    {"models", "which models there are, and how to get one", models, NULL},
    {"resume", "stopping, crashing and going on", resume, NULL},
    {"exit-codes", "what the exit codes mean", exit_codes, NULL},
    {NULL, NULL, NULL, NULL},
};
