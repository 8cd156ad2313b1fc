#include "base/stage.h"

const char *stage_name(enum stage stage)
{
    switch (stage) {
    case STAGE_ENCODE:
        return "encode";
    case STAGE_QFORMER:
        return "qformer";
    case STAGE_LLM:
        return "llm";
    }
    return "?";
}
