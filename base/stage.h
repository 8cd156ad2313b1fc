/* stage.h - the stages of the pipeline. A worker runs one stage; so does a node of a job's graph.
 *
 * Who may call: anyone. Units, memory, errors: none. */
#ifndef BLIPLINE_BASE_STAGE_H
#define BLIPLINE_BASE_STAGE_H

/* wire.proto and stores use the same numbers: never renumber. 0 means "not given". */
enum stage {
    STAGE_ENCODE = 1, /* the vision trunk; post_layernorm belongs to the Q-Former */
    STAGE_QFORMER,
    STAGE_LLM,
};

#define N_STAGES 4 /* length of an array indexed by stage */

/* Sets of stages. */
#define STAGE_BIT(stage) (1u << (stage))
#define STAGES_ALL (STAGE_BIT(STAGE_ENCODE) | STAGE_BIT(STAGE_QFORMER) | STAGE_BIT(STAGE_LLM))

const char *stage_name(enum stage stage); /* "encode", "qformer", "llm", or "?" */

#endif
