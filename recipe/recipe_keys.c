/* recipe_keys.c - the table of the keys of a recipe. */
#include "recipe/recipe.h"

#include "base/nearest.h"
#include "recipe/recipe_private.h"
#include "proto/msg.h"

#include <string.h>

#define AT(field) offsetof(struct recipe, field), sizeof(((struct recipe *)0)->field)

const struct recipe_key recipe_keys[RECIPE_N_KEYS] = {
    {"", "name", KEY_TEXT, AT(name), 1, 0, "NAME", NULL,
     "its name in stores and messages (default: the file's name without .conf)"},
    {"", "about", KEY_TEXT, AT(about), 0, 0, "TEXT", NULL, "one line for the list of recipes"},

    {"caption", "prompt", KEY_PROMPT, 0, 0, 0, 0, "TEXT", NULL,
     "text that the caption continues. {NAME} stands for a column of the item's list row, {key} for its key, {{ "
     "and }} for braces. May be given several times: at most 8 prompts and questions, of 2047 bytes each. Each "
     "gets its own captions, in one pass over the image. Without a prompt, the caption begins with the model's "
     "first token"},
    {"caption", "question", KEY_QUESTION, 0, 0, 0, 0, "TEXT", NULL,
     "a prompt in the form that the language model was trained with for questions: \"Question: TEXT Answer:\" for "
     "OPT, \"Question: TEXT Short answer:\" for FlanT5. {question} asks the question in the item's row; if that is "
     "a list, each of its values"},
    {"caption", "captions", KEY_COUNT, AT(decode.n_return), 1, GENERATION_MAX_RETURN, "N", NULL,
     "captions for each prompt: the best N beams, or N samples. A picture has at most 32 captions and texts in all"},
    {"caption", "max-new-tokens", KEY_COUNT, AT(decode.max_new_tokens), 1, MSG_MAX_NEW_TOKENS, "N", NULL,
     "maximum number of tokens of a caption, its end token included"},
    {"caption", "min-new-tokens", KEY_COUNT, AT(decode.min_new_tokens), 0, MSG_MAX_NEW_TOKENS, "N", NULL,
     "minimum number of tokens of a caption"},
    {"caption", "beams", KEY_COUNT, AT(decode.n_beams), 1, GENERATION_MAX_BEAMS, "N", NULL,
     "width of the beam search; 1: greedy decoding, or sampling"},
    {"caption", "length-penalty", KEY_REAL, AT(decode.length_penalty), -100, 100, "X", NULL,
     "beams: a caption's score is its log-probability / length^X; values below 0 prefer short captions"},
    {"caption", "early-stopping", KEY_EARLY, AT(decode.early_stopping), 0, 0, "WHEN", "true",
     "beams: true stops as soon as there are as many captions as beams; false, when a better one is unlikely; "
     "never, when a better one is impossible"},
    {"caption", "repetition-penalty", KEY_POSITIVE, AT(decode.repetition_penalty), 0, 100, "X", NULL,
     "scores of tokens that have occurred before are divided by X (multiplied if negative); 1: off"},
    {"caption", "no-repeat-ngram", KEY_COUNT, AT(decode.no_repeat_ngram), 0, MSG_MAX_NEW_TOKENS, "N", NULL,
     "no sequence of N tokens occurs twice; 0: off"},
    {"caption", "sample", KEY_YES, AT(decode.sample), 0, 0, "yes|no", "yes",
     "draw tokens at random instead of taking the most probable one"},
    {"caption", "temperature", KEY_POSITIVE, AT(decode.temperature), 0, 1000, "X", NULL,
     "sampling: divide logits by X"},
    {"caption", "top-k", KEY_COUNT, AT(decode.top_k), 0, 1 << 22, "N", NULL,
     "sampling: draw only from the N most probable tokens; 0: from all"},
    {"caption", "top-p", KEY_POSITIVE, AT(decode.top_p), 0, 1, "X", NULL,
     "sampling: draw only from the most probable tokens that together reach X (nucleus sampling)"},
    {"caption", "seed", KEY_SEED, AT(decode.seed), 0, 0, "N", NULL,
     "sampling: the same seed gives the same captions, however the work is divided"},

    {"score", "score", KEY_SCORE, 0, 0, 0, 0, "WHAT", "itc,itm",
     "how well each caption, and each text of text-field, fits the image: itc (similarity), itm (match "
     "probability, slower), itc,itm (default), or none. Needs a retrieval checkpoint"},
    {"score", "text-field", KEY_FIELD, 0, 0, 0, 0, "NAME", NULL,
     "a column of the item's list row with a text or a list of texts. They are stored as captions and scored like "
     "captions. May be given several times, at most 4"},

    {"embed", "embed", KEY_EMBED, 0, 0, 0, 0, "KIND", NULL,
     "embeddings to store: query (the Q-Former's outputs, Q x E), cls (the image encoder's class token), and with "
     "a retrieval checkpoint itc (image embeddings, Q x d; itc:first is only the first row) and itc_text (one row "
     "for each caption or text). A type may follow: query:fp16; the default is fp32. May be given several times"},

    {"pixels", "exif-orientation", KEY_EITHER, AT(exif_orientation), 0, 0, "ignore|apply", NULL,
     "what to do with the orientation in EXIF data: ignore it, as the reference does, or apply it to the picture"},
    {"pixels", "grey16", KEY_EITHER, AT(grey16_high_byte), 0, 0, "clip|high-byte", NULL,
     "16-bit grey PNG: clip turns everything above 255 white, as Pillow and therefore the reference does; "
     "high-byte keeps the upper 8 bits, which is what such a picture looks like"},

    {"precision", "dtype", KEY_DTYPES, 0, 0, 0, 0, "TYPE", NULL,
     "number type of all stages: fp32; bf16, if the processor has it; on GPUs also fp16 and fp8; or auto, which is "
     "bf16 on GPUs and fp32 on the CPU. With fp8, the matrices of the image encoder and of OPT are fp8 and "
     "everything else is bf16 (for FlanT5, set llm-dtype to bf16 too). A store keeps its types: to continue it on "
     "the other kind of device, give them here"},
    {"precision", "encoder-dtype", KEY_DTYPE, AT(dtype_encode), 0, 0, "TYPE", NULL, "number type of the image encoder"},
    {"precision", "qformer-dtype", KEY_DTYPE, AT(dtype_qformer), 0, 0, "TYPE", NULL,
     "number type of the Q-Former; not fp8"},
    {"precision", "llm-dtype", KEY_DTYPE, AT(dtype_llm), 0, 0, "TYPE", NULL,
     "number type of the language model; FlanT5 supports only fp32 and bf16"},
};

const struct recipe_section recipe_sections[RECIPE_N_SECTIONS] = {
    {"", 0, NULL},
    {"caption", RECIPE_CAPTION, "Write captions, or answers. Needs a checkpoint with a language model."},
    {"score", RECIPE_SCORE, "Compare captions and texts with their image."},
    {"embed", RECIPE_EMBED, "Keep embeddings; blipline export writes them as .npy."},
    {"pixels", 0, "How picture files become pixels, where there is a choice."},
    {"precision", 0, "What numbers the stages compute in."},
};

unsigned recipe_stage_of(const char *section)
{
    for (int i = 0; i < RECIPE_N_SECTIONS; i++)
        if (strcmp(recipe_sections[i].name, section) == 0)
            return recipe_sections[i].stage;
    return 0;
}

void recipe_init(struct recipe *r)
{
    struct msg_recipe defaults;

    msg_recipe_init(&defaults);
    memset(r, 0, sizeof(*r));
    r->decode = defaults.decode;
}

const struct recipe_key *recipe_find_key(const char *name)
{
    for (int i = 0; i < RECIPE_N_KEYS; i++)
        if (strcmp(recipe_keys[i].name, name) == 0)
            return &recipe_keys[i];
    return NULL;
}

int recipe_key_number(const char *name)
{
    const struct recipe_key *k = recipe_find_key(name);

    return k ? (int)(k - recipe_keys) : -1;
}

bool recipe_key_is_list(int number)
{
    enum recipe_key_type t = recipe_keys[number].type;

    return t == KEY_PROMPT || t == KEY_QUESTION || t == KEY_FIELD || t == KEY_EMBED;
}

const char *recipe_key_section(int number)
{
    return recipe_keys[number].section;
}

bool recipe_begin_section(struct recipe *r, const char *section)
{
    for (int i = 0; i < RECIPE_N_SECTIONS; i++) {
        if (strcmp(recipe_sections[i].name, section) != 0)
            continue;
        if (recipe_sections[i].stage == RECIPE_SCORE && !(r->stages & RECIPE_SCORE))
            r->itc = r->itm = true;
        r->stages |= recipe_sections[i].stage;
        return true;
    }
    return false;
}

char *recipe_section_hint(const char *typed, char *ret, size_t ret_size)
{
    const char *names[RECIPE_N_SECTIONS]; /* without the first, which has none */

    for (int i = 1; i < RECIPE_N_SECTIONS; i++)
        names[i - 1] = recipe_sections[i].name;
    names[RECIPE_N_SECTIONS - 1] = NULL;
    return nearest_hint("", typed, names, ret, ret_size);
}
