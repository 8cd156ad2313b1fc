/* help_topics.c - the pages of `blipline help TOPIC` that belong to no single command. */
#include <stddef.h>
#include <string.h>

#include "base/nearest.h"
#include "client/commands.h"
#include "recipe/recipe.h"

static const char sources[] =
    "SOURCES\n\n"
    "A source of `blipline caption`, `score` and `embed` is one of\n\n"
    "  a folder     every .jpg .jpeg .jpe .jfif .mpo .png .apng .webp below it (in any case), in bytewise order of\n"
    "               the paths; hidden names are skipped, links to files are followed, links to folders are not\n"
    "  a file       that file, whatever its name\n"
    "  @list.txt    one path a line, relative to the list's folder or absolute\n"
    "  @list.jsonl  a table: one JSON object a line (also .ndjson), such as {\"path\": \"a.jpg\", \"caption\": \"a "
    "cat\"}\n"
    "  @list.csv    a table: the first row names the columns; quotes as Python's csv module\n"
    "               takes them\n"
    "  @list.tsv    the same with tabs\n"
    "  @-           standard input; this and what a shell puts in the place of @<(COMMAND) start from the working\n"
    "               folder, one path a line, or JSONL where the first byte is {\n\n"
    "A folder or file whose name begins with @ is written ./@name. Several sources may be given; their items are\n"
    "numbered in that order. The key of an item is its path relative to its source, so keys need not be unique: "
    "exports\n"
    "of stores with several sources name the source too.\n\n"
    "A source has a name: the last part of its path, or the NAME of NAME=PATH. An item is its key within its source,\n"
    "wherever that lies. So a folder may be moved, or come from another mount point, and the store goes on: a source "
    "in\n"
    "another place is taken for one that the store knows where keys, sizes and times of its pictures say so (at least\n"
    "half of the first 256), or where its NAME= does. Files are a source by folder, each list is one. A list is safe "
    "to\n"
    "move where its paths are relative or it has a column key.\n\n"
    "What a folder holds besides is passed over and counted, in the run, in its --json and by blipline stats:\n"
    "other_names, hidden, dangling_links, looping_links, linked_folders, pipes (and sockets), devices; and, with exit\n"
    "code 3 and \"complete\": false, unreadable_folders, unreadable_links and long_paths.\n\n"
    "Archives and Parquet files are not read, and nothing is fetched from the network: the message says how to get at\n"
    "the pictures.\n\n"
    "A picture that cannot be used becomes an item with a reason (missing, unreadable, empty, too_large,\n"
    "unknown_format, unsupported, truncated, corrupt, too_many_pixels); it never stops the others. Nor does one that\n"
    "crashes its decoder (decoder_crashed), or takes it more than 10 s (decoder_timeout) or more memory than the "
    "largest\n"
    "picture needs (decoder_memory): pictures are decoded in processes of their own. Nor does a row of a\n"
    "list: no_picture where its cell is empty, url where it names something on the network, bad_row where a value "
    "that\n"
    "is used cannot be (or a row of CSV has more cells than columns).\n\n"
    "The picture is in the column that --image-column names, or in the first of these that has a path: path, image,\n"
    "image_path, img, file, file_name, filename, filepath, url, image_url, or else key; relative to the table's "
    "folder\n"
    "or absolute. key, if there is one, is the item's key. Of the other columns those are kept that the recipe asks "
    "for:\n"
    "{NAME} in a prompt, text-field = NAME; and those of --fields, for `export --fields`; what is in the rest does not "
    "matter. A value of JSONL may be a list, [\"how\n"
    "many?\", \"which colour?\"]: a prompt with it becomes one prompt a value, a text field one text a value. An empty "
    "cell\n"
    "of CSV is no value, nor are null and NaN; a cell is one text whatever is in it, [\"a\", \"b\"] too: for lists "
    "take\n"
    "JSONL. Numbers are taken as they are written. A row without a value that a prompt needs becomes an item with "
    "that\n"
    "reason. Names of columns are taken as they are, with their case and spaces.\n\n"
    "Texts may also come in a file of their own: --join TABLE gives the pictures of a folder (or list) the columns of "
    "the\n"
    "table's rows with their key; of several rows with one key all values are taken.\n\n"
    "Text is UTF-8; a byte order mark and CRLF are fine; a row has at most 16 MiB, a value that is used 16 KiB, and "
    "what is\n"
    "used of a row at most 64 values and 128 KiB. JSON is read as Python's json module does: NaN and Infinity, numbers "
    "of\n"
    "any size, \\u0000 and halves of surrogate pairs may stand in columns that are not used, and of repeated keys the "
    "last\n"
    "one counts. A table is read to its end before any work, so that a line that is no JSON at all, or a quote that "
    "is\n"
    "never closed, is an error with its number.";

static const char store[] =
    "STORE\n\n"
    "A store is a folder with one LMDB environment (data.mdb, lock.mdb) and the file `owner`, which is locked while\n"
    "somebody writes. It holds the list of items, the state of the units they are worked on in, and one record an\n"
    "item: the caption with its log-probability and number of tokens, or the reason why there is none. Every row has\n"
    "a checksum.\n\n"
    "An item keeps its number for ever. Running `blipline caption` again on the same store goes on where it was:\n"
    "pictures that are new in the source get new numbers, records of pictures that vanished stay, and what failed can "
    "be\n"
    "tried again (blipline help resume). Paths are kept relative to their source, so the pictures may move (blipline "
    "help\n"
    "sources). A store remembers\n"
    "its recipe (blipline help recipe) and its models by fingerprint, and refuses others, naming the difference.\n\n"
    "Any number of readers may use a store while it is being written: blipline export, get, stats, verify, or any\n"
    "program with LMDB and protobuf; examples/read_store.py (of the source, or of PREFIX/share/blipline) is a dozen "
    "lines\n"
    "of Python (Debian: python3-lmdb, python3-protobuf).\n\n"
    "Before a run goes on in a store, the pages of its file are looked at: each must be in one table or free. One\n"
    "larger than 1 GiB is trusted where it was closed in order, unless --check is given. Nothing is written to a "
    "store\n"
    "whose pages are damaged: blipline verify lists what is wrong, blipline export writes what can still be read, and\n"
    "where the free list alone is damaged `mdb_copy -c STORE NEW` (Debian: lmdb-utils) makes a sound copy.";

static const char models[] =
    "MODELS\n\n"
    "--model and --score-model name a folder in the layout of published checkpoints: config.json,\n"
    "preprocessor_config.json (or processor_config.json, as transformers 5 saves it), tokenizer.json and\n"
    "model.safetensors (or shards with model.safetensors.index.json). A name without a slash is\n"
    "looked for in this folder, then in models/, then among the models that came with Blipline (in\n"
    "PREFIX/share/blipline/models after `make install`).\n\n"
    "  blip2-opt-demo            comes with Blipline; small, trained on drawings of pictograms, knows nothing else\n"
    "  blip2-itm-demo            the same for scores and ITC embeddings\n\n"
    "  Salesforce/blip2-opt-2.7b      captions of real photographs, answers; 15 GB\n"
    "  Salesforce/blip2-flan-t5-xl    the same with a language model that follows instructions; 16 GB\n"
    "  Salesforce/blip2-itm-vit-g     retrieval: scores and ITC embeddings; 5 GB. No captions\n\n"
    "      pip install huggingface_hub\n"
    "      hf download Salesforce/blip2-opt-2.7b --exclude '*.bin' \\\n"
    "          --local-dir models/blip2-opt-2.7b\n"
    "      blipline caption photos/ -o photos.lmdb --model blip2-opt-2.7b\n\n"
    "The whole checkpoint is checked before any work: a missing or unknown tensor, a wrong shape or an unsupported\n"
    "option is refused by its name. `blipline selftest` asks whether this machine computes BLIP-2 right.";

static const char exit_codes[] =
    "EXIT CODES\n\n"
    "  0    everything is done\n"
    "  1    an error, said on standard error; or the job paused, since too many pictures\n"
    "       failed (blipline help resume)\n"
    "  2    the command line or the recipe is wrong, or names something that is not\n"
    "       there: a source, a store to read, a model\n"
    "  3    everything is done, but some items have an error for a record, or could not be\n"
    "       done again, or a folder of the sources could not be read\n"
    "  130  stopped by Ctrl-C; run the same command again to go on\n"
    "  143  stopped by SIGTERM (129: the terminal was closed); likewise";

static const char resume[] =
    "RESUME\n\n"
    "Ctrl-C (or SIGTERM) stops `blipline caption`: work in hand is finished and committed, the programs it started\n"
    "end, and the command says how to go on. A second Ctrl-C ends them at once. Either way, and also after a crash or\n"
    "kill -9, run the same command again: what is committed is kept, the rest is done, and the export is byte by byte\n"
    "that of a run that was never interrupted.\n\n"
    "The same pictures in another place are the same items: after `mv photos photos2`, or on another mount point, "
    "give\n"
    "the new path (blipline help sources).\n\n"
    "A worker or broker that dies is started again by itself; after five deaths within 30 s, or three starts that "
    "failed,\n"
    "the command gives up and shows the end of the log. A full disk is waited for, with a message: the work goes on "
    "as\n"
    "soon as there is room.\n\n"
    "A picture that failed keeps the reason for its record. Reasons that may have passed are tried again by the next "
    "run\n"
    "of the same command: missing, unreadable, no_memory, decoder_memory, timed_out, lost; so is an item whose record\n"
    "is damaged. The others are once the cause is mended:\n\n"
    "  --retry=truncated,corrupt   those that failed for one of these reasons (`blipline stats STORE` lists them)\n"
    "  --retry                     all that failed\n"
    "  --refresh                   what has changed since it was listed: size or time of the file, columns of its "
    "row\n\n"
    "A record stays until the new one is committed, and a failure never takes the place of a caption: where a changed\n"
    "picture cannot be used, its earlier record stays and the next run tries once more. What is to be done again is\n"
    "written into the store, so that a run that was killed goes on with it, with or without the option. Pictures that\n"
    "are gone from the source keep their records, and are not tried again. Numbers never change.\n\n"
    "When 50 pictures in a row fail, the source is probably not what it was: a folder moved away, a network disk gone, "
    "a\n"
    "disk full of errors. Then the job pauses before these failures are written down: the command says what failed "
    "and\n"
    "for which reasons, and ends with exit code 1; run it again once the source is back, and nothing is missing.\n"
    "--max-failures N sets another number, --max-failures N% a share of the pictures of this run (looked at from the\n"
    "100th on; 100% never pauses). A share takes longer to tell: failures of some thousand pictures before may be "
    "written\n"
    "down by then (--retry tries them again). Pictures that are done again do not count, nor rows of a list that "
    "cannot "
    "be\n"
    "used.\n\n"
    "Pictures that no worker can do, however often it is tried, are given up and count as failed; where "
    "--max-failures\n"
    "is a share, 32 of them in a row pause the job as well, unless it is 100%. A worker that fails again and again "
    "gets less to do, one\n"
    "that hangs is ended and started anew, and the command says what it waits for.\n\n"
    "--limit says how many pictures are listed: those that a store lists already are done all the same.\n\n"
    "The device is no part of a recipe, but the types that its stages compute in are. Where they are left open, they\n"
    "are bf16 on GPUs and fp32 on the CPU: to go on with a store on the other kind of device say --dtype with its "
    "type\n"
    "(the command names the difference). Records of both are in the store then, equal but for what rounding does.";

static const char json[] =
    "JSON\n\n"
    "With --json, blipline caption, score, embed, get, stats, verify, selftest and devices print a JSON object on "
    "standard output (get: one an item, each on a line of its own); the words for people stay on standard error. Its "
    "first two fields say what it is: schema, a word from the list below, and version, a number. Later programs may "
    "add "
    "fields; where one goes, or means something else, the version is another.\n\n"
    "When a command fails, whatever the reason, the object is\n\n"
    "  {\"schema\": \"error\", \"version\": 1, \"command\": \"stats\",\n"
    "   \"error\": {\"exit_code\": 2, \"message\": \"...\"}}\n\n"
    "Version 1 has\n\n"
    "  caption   complete (false: it was stopped, then waiting_for says what it waited for, if it did; or paused, then "
    "paused says why; or a folder could not be read), "
    "items, "
    "done, failed, given_up (of those that failed in this run: no worker could do them, however often it was tried), "
    "this_run (items done in this run), done_again (of those, how many had a record before), to_do_again "
    "(items whose record stays until they are done again), passed_over (what the walks over folders did not take, by "
    "kind: "
    "blipline help sources), seconds, waited_s (of those, for room on the disk), "
    "images_per_s; stages: a list of {stage, items, busy_s, share, decode_s, resize_s, failures (units that "
    "failed, or whose worker died), lease_expiries (units whose worker fell silent), bad_results (of the failures: "
    "what "
    "came back was not what was asked for), returns (units that were handed back), tensors_refused (results whose "
    "bytes "
    "were not what their checksum says; they were made again), stalls (units that a worker kept far too long)}; "
    "broker: "
    "{late, strangers, malformed, bad_messages (what was dropped: results of units that had gone to others, messages "
    "of "
    "unknown workers, results and messages that make no sense), refusals, benches (workers that had to rest since what "
    "they did went wrong again and again), cut_off (workers that were ended since they hung), splits (units that were "
    "cut up to find what fails in them), lost (results that were lost or refused between two stages), closed "
    "(connections that said "
    "nothing, or went on with what is refused), turned_away (messages of peers that were too many)}. Also of "
    "score and embed\n"
    "  dry-run   with --dry-run: recipe, stages (what depends on what), columns (of lists, that are used), workers "
    "(the "
    "processes), pictures, new (to the store), retry (failed ones that would be tried again), refresh (changed ones "
    "that "
    "would be done again), passed_over\n"
    "  item      of get: a row as blipline export writes it (blipline help export), and pending: true where there is "
    "no "
    "result yet\n"
    "  stats     recipe, model, prompts, max_new_tokens, program, created_ms, stages: how the store was made; items, "
    "units, sealed (the list is complete), done, done_again (records that took the place of others, ever), "
    "to_do_again, captions, failed, pending, given (texts that came with the pictures), "
    "scores, damaged, image_bytes, failures (a number for each reason), failed_attempts (units that a worker could not "
    "do, or did not live to "
    "do, and that were tried again, ever), disk_bytes, tokens, tokens_histogram, "
    "words_histogram, mean_logprob, passed_over (by the last walk over each source)\n"
    "  verify    sound, items, done, to_do_again, embeddings (a number for each kind), n_problems, problems: a list of "
    "{text, unit, "
    "item}, the first hundred\n"
    "  selftest  pass, verdict, machine, device, dtype, n_rows, n_failed, n_skipped, seconds, rows: a list of tests\n"
    "  devices   cpu {model, isa, threads}, gpus: a list of {uuid, model, bus}, visible, driver, cuda_library, mps, "
    "auto: "
    "what --device auto takes\n\n"
    "Sizes are in bytes, fields that end in _s in seconds, in _ms in milliseconds (created_ms: since 1970). What is "
    "not "
    "known is null.";

static int print_recipe(const char *name, FILE *out)
{
    const char *words[32];
    char hint[96];
    size_t n;

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
    for (n = 0; n < 31 && recipe_builtins[n].name; n++)
        words[n] = recipe_builtins[n].name;
    words[n] = NULL;
    cli_error("there is no built-in recipe %s%s (blipline help recipe lists them)", name,
              nearest_hint("", name, words, hint, sizeof(hint)));
    return CLI_EXIT_USAGE;
}

const struct help_topic help_topics[] = {
    {"sources", "what can be captioned", sources, NULL},
    {"recipe", "what can be computed: recipes, their keys, and those that are built in", NULL, print_recipe},
    {"store", "what a store is, and who may read it", store, NULL},
    {"models", "which models there are, and how to get one", models, NULL},
    {"resume", "stopping, crashing and going on", resume, NULL},
    {"json", "what --json prints", json, NULL},
    {"exit-codes", "what the exit codes mean", exit_codes, NULL},
    {NULL, NULL, NULL, NULL},
};
