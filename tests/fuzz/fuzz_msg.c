/* Any bytes as an envelope: refused, or a message that packs again to one that is accepted. */
#include "proto/msg.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct msg m, again;
    struct buf packed;

    if (msg_unpack(data, size, &m, NULL) < 0)
        return 0;
    buf_init(&packed, 0);
    if (msg_pack(&m, &packed, NULL) < 0 || msg_unpack(packed.data, packed.size_bytes, &again, NULL) < 0)
        abort();
    if (again.type != m.type || again.n_tensors != m.n_tensors || again.seq != m.seq)
        abort();
    msg_release(&again);
    msg_release(&m);
    buf_release(&packed);
    return 0;
}
