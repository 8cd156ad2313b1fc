#include "broker/graph.h"

#include "proto/row.h"
#include "proto/template.h"

#include <errno.h>

static int check_node(const struct msg_recipe *r, const struct msg_node *node, uint32_t i, struct err *err)
{
    const uint32_t n_prompts = r->n_prompts ? r->n_prompts : 1;

    if ((node->stage == STAGE_QFORMER) != (node->tasks != 0))
        return err_set(err, -EINVAL, "node %u is %s with tasks 0x%x: a qformer node has some, others have none", i,
                       stage_name(node->stage), node->tasks);
    if ((node->tasks & MSG_TASK_SCORE) && !r->itc && !r->itm)
        return err_set(err, -EINVAL, "node %u scores, and the recipe asks for neither itc nor itm", i);
    if (node->stage != STAGE_LLM)
        return 0;
    if (r->decode.max_new_tokens == 0)
        return err_set(err, -EINVAL, "node %u is llm, and the recipe generates nothing", i);
    if ((uint64_t)n_prompts * r->decode.n_return > ROW_MAX_CAPTIONS)
        return err_set(err, -EINVAL, "%u prompts of %u captions each are more than the %d captions of an item",
                       n_prompts, r->decode.n_return, ROW_MAX_CAPTIONS);
    return 0;
}

static int check_prompts(const struct msg_recipe *r, struct err *err)
{
    struct template t;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_prompts; i++) {
        rc = template_parse(r->prompts[i], &t, err);
        if (rc < 0)
            (void)err_prefix(err, rc, "prompt %u", i + 1);
    }
    return rc;
}

/* Does the graph give the embeddings that the recipe asks for, each once, and no others? */
static int check_embeddings(const struct msg_job_open *open, struct err *err)
{
    uint32_t given = 0;

    for (uint32_t i = 0; i < open->n_nodes; i++) {
        const uint32_t tasks = open->nodes[i].tasks & GRAPH_EMBEDDING_TASKS;

        if (tasks & given)
            return err_set(err, -EINVAL, "two nodes give the same embedding");
        given |= tasks;
    }
    for (enum msg_embedding kind = MSG_EMBEDDING_QUERY; kind <= MSG_EMBEDDING_CLS; kind++) {
        const bool wanted = msg_recipe_embedding(&open->recipe, kind) != NULL;

        if (wanted != ((given & msg_embedding_task(kind)) != 0))
            return err_set(err, -EINVAL, wanted ? "no node gives the embedding %s" : "the recipe wants no embedding %s",
                           msg_embedding_name(kind));
    }
    return 0;
}

int graph_check(const struct msg_job_open *open, struct err *err)
{
    int rc = check_prompts(&open->recipe, err);

    if (rc == 0)
        rc = check_embeddings(open, err);
    for (uint32_t i = 0; rc == 0 && i < open->n_nodes; i++)
        rc = check_node(&open->recipe, &open->nodes[i], i, err);
    return rc;
}
