/* The graph of a job: is it valid, and how much memory does an item need on its way? */
#include "broker/core.h"

#include <errno.h>

int core_graph_check(const struct core_node *nodes, uint32_t n_nodes, struct err *err)
{
    if (n_nodes == 0 || n_nodes > CORE_MAX_NODES)
        return err_set(err, -EINVAL, "a job of %u nodes; 1 to %d are possible", n_nodes, CORE_MAX_NODES);
    for (uint32_t i = 0; i < n_nodes; i++) {
        if (nodes[i].stage == 0 || nodes[i].stage >= N_STAGES)
            return err_set(err, -EINVAL, "node %u: unknown stage %u", i, nodes[i].stage);
        if (nodes[i].needs >> i)
            return err_set(err, -EINVAL, "node %u needs a node that does not come before it (0x%x)", i, nodes[i].needs);
        if (nodes[i].out_bytes > (uint64_t)1 << 40)
            return err_set(err, -EINVAL, "node %u: %llu bytes an item", i, (unsigned long long)nodes[i].out_bytes);
        if (nodes[i].row_bytes > (uint64_t)1 << 40)
            return err_set(err, -EINVAL, "node %u: rows of %llu bytes an item", i,
                           (unsigned long long)nodes[i].row_bytes);
    }
    return 0;
}

uint64_t core_graph_peak_bytes(const struct core_node *nodes, uint32_t n_nodes)
{
    uint64_t peak = 0;

    /* Try every reachable set of finished nodes and every node that may finish next; its output exists before its
     * inputs are dropped. At most 256 x 8 cases. */
    for (uint32_t done = 0; done < 1u << n_nodes; done++) {
        uint64_t live = 0;
        bool reachable = true;

        for (uint32_t i = 0; i < n_nodes; i++) {
            bool wanted = false;

            if (!(done >> i & 1))
                continue;
            reachable = reachable && (nodes[i].needs & ~done) == 0;
            for (uint32_t k = i + 1; k < n_nodes; k++)
                wanted = wanted || ((nodes[k].needs >> i & 1) && !(done >> k & 1));
            live += wanted ? nodes[i].out_bytes : 0;
        }
        for (uint32_t k = 0; reachable && k < n_nodes; k++)
            if (!(done >> k & 1) && (nodes[k].needs & ~done) == 0 && live + nodes[k].out_bytes > peak)
                peak = live + nodes[k].out_bytes;
    }
    return peak;
}
