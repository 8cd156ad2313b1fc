#include "stream.h"

#include <time.h>

#include <set>

std::recursive_mutex emulator_lock;
int emulator_eager = -1;

static CUstream_st default_stream = {std::make_shared<emulator_queue>(), true, nullptr, false};
static std::set<CUstream_st *> streams = {&default_stream};

using guard = std::lock_guard<std::recursive_mutex>;

/* -- queues -- */

CUstream_st *emulator_stream(cudaStream_t s)
{
    if (!s || s == cudaStreamLegacy || s == cudaStreamPerThread)
        return &default_stream;
    if (!streams.count(s))
        emulator_fail("%p is not a stream", (void *)s);
    return s;
}

void emulator_run_some(const std::shared_ptr<emulator_queue> &q)
{
    if (q->items.empty())
        return;
    const emulator_item item = std::move(q->items.front());

    q->items.pop_front();
    if (item.wait.queue)
        emulator_run_until(item.wait);
    if (item.work)
        item.work();
    q->n_done++;
}

void emulator_run_until(const emulator_point &p)
{
    if (!p.queue || p.queue->n_done >= p.n)
        return;
    emulator_memory_open();
    while (p.queue->n_done < p.n)
        emulator_run_some(p.queue);
    emulator_memory_close();
}

static void finish(const std::shared_ptr<emulator_queue> &q)
{
    emulator_run_until({q, q->n_queued});
}

static void push(CUstream_st *s, emulator_work work, const emulator_point &wait)
{
    s->queue->items.push_back({std::move(work), wait});
    s->queue->n_queued++;
}

/* The default stream and the blocking ones wait for one another. */
static void order_default(CUstream_st *s)
{
    if (!s->blocking)
        return;
    for (CUstream_st *other : streams)
        if (other != s && other->blocking && (s == &default_stream || other == &default_stream) &&
            other->queue->n_done < other->queue->n_queued)
            push(s, nullptr, {other->queue, other->queue->n_queued});
}

/* The device goes on behind the host's back, as the seed will. */
static void run_ahead(void)
{
    if (emulator_eager < 0)
        emulator_eager = emulator_random() & 1 ? 0 : 32;
    if ((int)(emulator_random() & 255) >= emulator_eager)
        return;
    auto i = streams.begin();
    std::advance(i, emulator_random() % streams.size());
    emulator_run_until({(*i)->queue, (*i)->queue->n_done + emulator_random() % ((*i)->queue->items.size() + 1)});
}

cudaError_t emulator_enqueue(cudaStream_t stream, emulator_work work)
{
    CUstream_st *s = emulator_stream(stream);

    if (s->capture) {
        s->capture->works.push_back(std::move(work));
        return cudaSuccess;
    }
    order_default(s);
    push(s, std::move(work), {});
    if (s->queue->items.size() > 20000)
        finish(s->queue);
    run_ahead();
    return cudaSuccess;
}

void emulator_finish(cudaStream_t stream)
{
    finish(emulator_stream(stream)->queue);
}

void emulator_finish_all(void)
{
    for (CUstream_st *s : streams)
        finish(s->queue);
}

/* -- what may be called while something is captured -- */

bool emulator_is_capturing(cudaStream_t stream)
{
    return emulator_stream(stream)->capture != nullptr;
}

cudaError_t emulator_may_wait(cudaStream_t stream)
{
    CUstream_st *s = emulator_stream(stream);

    if (!s->capture)
        return cudaSuccess;
    s->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
}

static cudaError_t none_captures(bool relaxed_too)
{
    for (CUstream_st *s : streams)
        if (s->capture && (relaxed_too || s->capture->mode != cudaStreamCaptureModeRelaxed)) {
            s->capture->invalid = true;
            return cudaErrorStreamCaptureUnsupported;
        }
    return cudaSuccess;
}

cudaError_t emulator_may_wait_all(void)
{
    return none_captures(true);
}

cudaError_t emulator_may_allocate(void)
{
    return none_captures(false);
}

/* -- streams -- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags)
{
    const guard g(emulator_lock);

    if (flags & ~(unsigned)cudaStreamNonBlocking)
        return emulator_return(cudaErrorInvalidValue);
    *ret = new CUstream_st{std::make_shared<emulator_queue>(), !(flags & cudaStreamNonBlocking), nullptr, false};
    streams.insert(*ret);
    return emulator_return(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *ret)
{
    return cudaStreamCreateWithFlags(ret, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(ret, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *ret_least, int *ret_greatest)
{
    *ret_least = 0;
    *ret_greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    const guard g(emulator_lock);

    if (!s || !streams.count(s))
        return emulator_return(cudaErrorInvalidResourceHandle);
    finish(s->queue);
    streams.erase(s);
    delete s;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    const guard g(emulator_lock);
    cudaError_t e = emulator_injected();

    if (!e)
        e = emulator_may_wait(s);
    if (!e) {
        order_default(emulator_stream(s));
        emulator_memory_open();
        emulator_finish(s);
        emulator_memory_close();
    }
    return emulator_return(e);
}

cudaError_t cudaDeviceSynchronize(void)
{
    const guard g(emulator_lock);
    cudaError_t e = emulator_injected();

    if (!e)
        e = emulator_may_wait_all();
    if (!e) {
        emulator_memory_open();
        emulator_finish_all();
        emulator_memory_close();
    }
    return emulator_return(e);
}

static cudaError_t query(const emulator_point &p)
{
    if (!p.queue || p.queue->n_done >= p.n)
        return cudaSuccess;
    if (emulator_random() & 1)
        emulator_run_until({p.queue, p.queue->n_done + 1});
    return cudaErrorNotReady;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const guard g(emulator_lock);
    CUstream_st *s = emulator_stream(stream);
    const cudaError_t e = emulator_may_wait(stream);

    return e || emulator_sticky_error ? emulator_return(e) : query({s->queue, s->queue->n_queued});
}

/* -- events -- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned)
{
    const guard g(emulator_lock);

    *ret = new CUevent_st{};
    return emulator_return(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *ret)
{
    return cudaEventCreateWithFlags(ret, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    const guard g(emulator_lock);

    delete e;
    return emulator_return(e ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    const guard g(emulator_lock);
    CUstream_st *s = emulator_stream(stream);
    auto ms = std::make_shared<double>(0);

    e->capture = s->capture;
    if (s->capture)
        return emulator_return(cudaSuccess);
    order_default(s);
    push(s,
         [ms] {
             struct timespec t;

             clock_gettime(CLOCK_MONOTONIC, &t);
             *ms = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
         },
         {});
    e->done_ms = ms;
    e->point = {s->queue, s->queue->n_queued};
    return emulator_return(cudaSuccess);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t stream, unsigned)
{
    return cudaEventRecord(e, stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    const guard g(emulator_lock);
    CUstream_st *s = emulator_stream(stream);

    if (e->capture && !s->capture && !e->capture->invalid)
        s->capture = e->capture;
    if (s->capture) {
        if (e->capture == s->capture)
            return emulator_return(cudaSuccess); /* recorded in the order of the calls */
        s->capture->invalid = true;
        return emulator_return(cudaErrorStreamCaptureIsolation);
    }
    if (e->point.queue)
        push(s, nullptr, e->point);
    return emulator_return(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    const guard g(emulator_lock);
    cudaError_t error = emulator_injected();

    if (!error && e->capture)
        error = cudaErrorCapturedEvent;
    if (!error) {
        emulator_run_until(e->point);
    }
    return emulator_return(error);
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    const guard g(emulator_lock);

    if (e->capture || emulator_sticky_error)
        return emulator_return(cudaErrorCapturedEvent);
    return query(e->point);
}

cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end)
{
    const guard g(emulator_lock);

    if (!start->done_ms || !end->done_ms)
        return emulator_return(cudaErrorInvalidResourceHandle);
    if (!*start->done_ms || !*end->done_ms)
        return cudaErrorNotReady;
    *ret_ms = (float)(*end->done_ms - *start->done_ms);
    return emulator_return(cudaSuccess);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void *data)
{
    const guard g(emulator_lock);

    return emulator_return(emulator_enqueue(stream, [f, data] { f(data); }));
}

/* -- graphs -- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    const guard g(emulator_lock);
    CUstream_st *s = emulator_stream(stream);

    if (s == &default_stream || s->capture)
        return emulator_return(s->capture ? cudaErrorIllegalState : cudaErrorStreamCaptureUnsupported);
    s->capture = std::make_shared<emulator_recording>();
    s->capture->mode = mode;
    s->began_capture = true;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret)
{
    const guard g(emulator_lock);
    CUstream_st *s = emulator_stream(stream);
    const auto recording = s->capture;

    *ret = NULL;
    if (!recording || !s->began_capture)
        return emulator_return(recording ? cudaErrorStreamCaptureUnmatched : cudaErrorIllegalState);
    for (CUstream_st *other : streams)
        if (other->capture == recording)
            other->capture = nullptr;
    s->began_capture = false;
    if (recording->invalid)
        return emulator_return(cudaErrorStreamCaptureInvalidated);
    *ret = new CUgraph_st{recording};
    return emulator_return(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *ret)
{
    const guard g(emulator_lock);
    const CUstream_st *s = emulator_stream(stream);

    *ret = !s->capture           ? cudaStreamCaptureStatusNone
           : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    *mode = cudaStreamCaptureModeGlobal;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *, size_t *ret_n)
{
    const guard g(emulator_lock);

    *ret_n = graph->recording->works.size();
    return emulator_return(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long)
{
    const guard g(emulator_lock);

    *ret = new CUgraphExec_st{graph->recording};
    return emulator_return(cudaSuccess);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    const guard g(emulator_lock);
    const auto recording = exec->recording;
    const cudaError_t e = emulator_injected();

    if (e)
        return emulator_return(e);
    return emulator_return(emulator_enqueue(stream, [recording] {
        for (const emulator_work &work : recording->works)
            work();
    }));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    const guard g(emulator_lock);

    delete exec;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    const guard g(emulator_lock);

    delete graph;
    return emulator_return(cudaSuccess);
}
