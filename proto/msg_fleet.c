/* FleetQuery and Fleet to and from protobuf. */
#include "proto/msg_pb.h"

#include <errno.h>

void msg_fleet_query_to_pb(const struct msg_fleet_query *from, Blipline__FleetQuery *to)
{
    blipline__fleet_query__init(to);
    to->what = (Blipline__FleetQuery__What)from->what;
    to->from = from->from;
}

void msg_fleet_query_from_pb(const Blipline__FleetQuery *from, struct msg_fleet_query *to)
{
    *to = (struct msg_fleet_query){.what = (enum msg_fleet_what)from->what, .from = from->from};
}

void msg_fleet_to_pb(const struct msg_fleet *from, Blipline__Fleet *to)
{
    blipline__fleet__init(to);
    to->next = from->next;
    to->uptime_ms = from->uptime_ms;
    to->memory_bytes = from->memory_bytes;
    to->tensor_bytes = from->tensor_bytes;
    to->tensor_limit = from->tensor_limit;
    to->row_bytes = from->row_bytes;
    to->row_limit = from->row_limit;
    to->n_workers = from->n_workers;
    to->n_jobs = from->n_jobs;
    to->n_other_jobs = from->n_other_jobs;
    to->disk_room = from->disk_room;
}

void msg_fleet_from_pb(const Blipline__Fleet *from, struct msg_fleet *to)
{
    *to = (struct msg_fleet){.next = from->next,
                             .uptime_ms = from->uptime_ms,
                             .memory_bytes = from->memory_bytes,
                             .tensor_bytes = from->tensor_bytes,
                             .tensor_limit = from->tensor_limit,
                             .row_bytes = from->row_bytes,
                             .row_limit = from->row_limit,
                             .n_workers = from->n_workers,
                             .n_jobs = from->n_jobs,
                             .n_other_jobs = from->n_other_jobs,
                             .disk_room = from->disk_room};
}

int msg_fleet_check(const struct msg *m, struct err *err)
{
    if (m->type == MSG_FLEET && m->n_rows > MSG_MAX_FLEET_ROWS)
        return err_set(err, -EMSGSIZE, "fleet: %u rows, the limit is %d", m->n_rows, MSG_MAX_FLEET_ROWS);
    if (m->type == MSG_FLEET && m->fleet.n_other_jobs > m->fleet.n_jobs)
        return err_set(err, -EBADMSG, "fleet: %u jobs of others, of %u", m->fleet.n_other_jobs, m->fleet.n_jobs);
    if (m->type == MSG_FLEET_QUERY && (m->fleet_query.what < MSG_FLEET_STAGES || m->fleet_query.what > MSG_FLEET_JOBS))
        return err_set(err, -EBADMSG, "fleet_query: unknown kind of rows %d", (int)m->fleet_query.what);
    return 0;
}
