/* stream.h - what a stream, an event and a graph are here.
 *
 * A stream is a queue; nothing of it runs until something waits for it. Within a stream work runs in order; between
 * streams there is the order that events make and no other.
 * Who may call: tests/emulator, under emulator_lock. */
#ifndef BLIPLINE_TESTS_EMULATOR_STREAM_H
#define BLIPLINE_TESTS_EMULATOR_STREAM_H

#include <deque>
#include <memory>
#include <vector>

#include "emulator.h"

struct emulator_queue;

/* The state of a queue when so much of it has run. */
struct emulator_point {
    std::shared_ptr<emulator_queue> queue;
    uint64_t n;
};

struct emulator_item {
    emulator_work work;
    emulator_point wait; /* first; queue NULL: for nothing */
};

struct emulator_queue {
    std::deque<emulator_item> items;
    uint64_t n_queued, n_done;
};

/* What a capture has recorded. */
struct emulator_recording {
    std::vector<emulator_work> works;
    enum cudaStreamCaptureMode mode;
    bool invalid;
};

struct CUstream_st {
    std::shared_ptr<emulator_queue> queue;
    bool blocking; /* waits for the default stream, and that for it */
    std::shared_ptr<emulator_recording> capture;
    bool began_capture;
};

struct CUevent_st {
    emulator_point point; /* queue NULL: not recorded */
    std::shared_ptr<double> done_ms;
    std::shared_ptr<emulator_recording> capture; /* recorded within one */
};

struct CUgraph_st {
    std::shared_ptr<emulator_recording> recording;
};
struct CUgraphExec_st {
    std::shared_ptr<emulator_recording> recording;
};

/* The stream behind a handle: NULL and the special ones are the default stream. */
CUstream_st *emulator_stream(cudaStream_t s);
/* Run the queue up to this point, and what that waits for. */
void emulator_run_until(const emulator_point &p);
/* One more thing of it. */
void emulator_run_some(const std::shared_ptr<emulator_queue> &q);
/* How often, of 256, a call that queues something also runs something: 0 .. 255. Drawn from the seed. */
extern int emulator_eager;

#endif
