"""Workers written with pyzmq and generated classes from proto/README.md alone.

PythonWorker, a thread, answers for the last stage. `null_worker.py ENDPOINT STAGE` is a process that plays one stage
of the graph caption + score: every number it sends follows from the item's, and every number it gets is compared with
what it must be. `null_worker.py ENDPOINT --dies-of ITEM` answers for the last stage and is killed by the item.
"""

import os
import random
import signal
import socket
import sys
import threading
import time

import numpy as np
import zmq
from harness import delimited
from proto import store_pb2, wire_pb2


def item_rows(envelope, frames):
    """The Item rows of a WORK."""
    rows = []
    data = b"".join(frames[1:1 + envelope.n_row_frames])
    at = 0
    for _ in range(envelope.n_rows):
        n, shift = 0, 0
        while True:
            byte = data[at]
            n |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        rows.append(store_pb2.Item.FromString(data[at:at + n]))
        at += n
    return rows


class PythonWorker(threading.Thread):
    """Answers every item with the caption "python"; says FAILURE for a unit that holds a poisoned item."""

    host, window = b"python", 64

    def __init__(self, endpoint, stage, poison=(), code=b"poison"):
        super().__init__(daemon=True)
        self.endpoint, self.stage, self.poison, self.code = endpoint, stage, set(poison), code
        self.ending = threading.Event()

    def stop(self):
        self.ending.set()
        self.join(10)

    def connect(self, context=None):
        socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 500)
        socket.connect(self.endpoint)
        self.say(
            socket,
            hello=wire_pb2.Hello(
                role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=self.host,
                boot_nonce=random.getrandbits(63), pid=os.getpid(), stage=self.stage, device=b"null",
                dtype=wire_pb2.DTYPE_F32, model=b"python", window_items=self.window, window_bytes=1 << 20,
            ),
        )
        return socket

    def run(self):
        socket = self.connect()
        epoch, beat = 0, time.monotonic()
        while not self.ending.is_set():
            if socket.poll(50):
                frames = socket.recv_multipart()
                envelope = wire_pb2.Envelope.FromString(frames[0])
                kind = envelope.WhichOneof("body")
                if kind == "welcome":
                    epoch = envelope.welcome.epoch
                elif kind == "work":
                    self.work(socket, envelope, frames)
            if epoch and time.monotonic() - beat > 0.2:
                beat = time.monotonic()
                self.say(socket, heartbeat=wire_pb2.Heartbeat(epoch=epoch, progress=1))
        self.say(socket, bye=wire_pb2.Bye())
        socket.close()

    def work(self, socket, envelope, frames):
        items = [row.item for row in item_rows(envelope, frames)]
        if self.poison & set(items):
            self.say(
                socket,
                failure=wire_pb2.Failure(lease=envelope.work.lease, code=self.code, text=b"poison among the items"),
            )
            return
        rows = b"".join(delimited(self.record(i)) for i in items)
        answer = wire_pb2.Envelope(version=2, n_row_frames=1, n_rows=len(items),
                                   result=wire_pb2.Result(lease=envelope.work.lease))
        socket.send_multipart([answer.SerializeToString(), rows])

    @staticmethod
    def record(item):
        return store_pb2.Record(item=item, captions=[store_pb2.Caption(text=b"python", logprob=-1.0, tokens=1)])

    @staticmethod
    def say(socket, **body):
        envelope = wire_pb2.Envelope(version=2)
        for name, value in body.items():
            getattr(envelope, name).SetInParent()
            getattr(envelope, name).CopyFrom(value)
        socket.send_multipart([envelope.SerializeToString()])


# -- caption + score: encode -> qformer(PROJECT) -> llm, and qformer(SCORE|QUERY|ITC), which needs the features of node
# 0 and the rows of node 2 --

WIDTH = 1500  # of both tensors, f32: a unit of 16 is more than what fits the envelope


def encode_fails(item):
    return item % 13 == 7


def caption_fails(item):
    return item % 11 == 5


def score_graph():
    kinds = wire_pb2
    scored = kinds.TASK_SCORE | kinds.TASK_QUERY | kinds.TASK_ITC
    return [
        kinds.Node(stage=kinds.STAGE_ENCODE, out_bytes=4 * WIDTH),
        kinds.Node(stage=kinds.STAGE_QFORMER, needs=0b001, out_bytes=4 * WIDTH, tasks=kinds.TASK_PROJECT),
        kinds.Node(stage=kinds.STAGE_LLM, needs=0b010),
        kinds.Node(stage=kinds.STAGE_QFORMER, needs=0b101, tasks=scored),
    ]


def score_recipe():
    return dict(
        itc=True,
        itm=True,
        embeddings=[
            wire_pb2.EmbeddingSpec(kind=wire_pb2.EMBEDDING_QUERY, dtype=wire_pb2.DTYPE_F32),
            wire_pb2.EmbeddingSpec(kind=wire_pb2.EMBEDDING_ITC, dtype=wire_pb2.DTYPE_F16, first_row=True),
        ],
    )


def query_of(item):
    return np.full((3, 4), item, "<f4")


def itc_of(item):
    return np.full((1, 4), item % 512, "<f2")


class GraphWorker:
    def __init__(self, endpoint, stage):
        self.endpoint, self.stage = endpoint, stage
        self.nonce = random.getrandbits(63)

    def connect(self):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(self.endpoint)
        self.epoch, self.heard, self.beat = 0, time.monotonic(), 0
        PythonWorker.say(
            self.socket,
            hello=wire_pb2.Hello(
                role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=b"python",
                boot_nonce=self.nonce, pid=os.getpid(), stage=self.stage, device=b"null",
                dtype=wire_pb2.DTYPE_F32, model=b"python", window_items=48, window_bytes=1 << 24,
            ),
        )

    def run(self):
        """For ever: it is ended by a signal."""
        self.connect()
        while True:
            if self.socket.poll(50):
                self.listen(self.socket.recv_multipart())
            now = time.monotonic()
            if (
                now - self.heard > 2
            ):  # a broker that does not answer heartbeats is gone, or another one that does not know us
                self.socket.close()
                self.connect()
            elif self.epoch and now - self.beat > 0.2:
                self.beat = now
                PythonWorker.say(self.socket, heartbeat=wire_pb2.Heartbeat(epoch=self.epoch, lease_ids=[], progress=1))

    def listen(self, frames):
        self.heard = time.monotonic()
        envelope = wire_pb2.Envelope.FromString(frames[0])
        kind = envelope.WhichOneof("body")
        if kind == "welcome":
            self.epoch = envelope.welcome.epoch
        elif kind == "work":
            self.work(envelope, frames)

    def inputs(self, envelope, frames, items):
        """One array [items, WIDTH] for each tensor, rows picked as the selections say."""
        at, arrays = 1 + envelope.n_row_frames, []
        for n, tensor in enumerate(envelope.tensors):
            data = (
                tensor.inline_data
                if tensor.transport == wire_pb2.TRANSPORT_INLINE
                else b"".join(frames[at : at + tensor.n_frames])
            )
            at += tensor.n_frames
            array = np.frombuffer(data, "<f4").reshape(tensor.shape)
            for s in envelope.work.selections:
                if s.tensor == n:
                    array = array[[bool(s.rows[i // 8] >> i % 8 & 1) for i in range(len(array))]]
            assert array.shape == (len(items), WIDTH), (array.shape, len(items))
            arrays.append(array)
        return arrays

    def work(self, envelope, frames):
        rows, tasks = item_rows(envelope, frames), envelope.work.tasks
        items = np.array([r.item for r in rows])
        inputs = self.inputs(envelope, frames, items)
        for array in inputs:  # what node 0 sends is the number, what node 1 sends the number and a half
            assert (array.T == items + (0.5 if self.stage == wire_pb2.STAGE_LLM else 0)).all(), "rows of other items"
        out, records = None, []
        if self.stage == wire_pb2.STAGE_ENCODE:
            assert not inputs
            out = items[[not encode_fails(i) for i in items]]
            records = [self.failed(i, b"truncated") if encode_fails(i) else store_pb2.Record(item=i) for i in items]
        elif self.stage == wire_pb2.STAGE_LLM:
            records = [self.failed(i, b"nolang") if caption_fails(i) else self.captioned(i) for i in items]
        elif tasks == wire_pb2.TASK_PROJECT:
            assert not any(r.captions for r in rows)
            out = items + 0.5
            records = [store_pb2.Record(item=i) for i in items]
        else:
            assert tasks == score_graph()[3].tasks and len(inputs) == 1
            records = [self.scored(r) for r in rows]
        self.answer(envelope.work.lease, records, out)

    @staticmethod
    def failed(item, code):
        return store_pb2.Record(item=item, error=store_pb2.ItemError(code=code, message=b"on purpose"))

    @staticmethod
    def captioned(item):
        return store_pb2.Record(
            item=item,
            captions=[
                store_pb2.Caption(text=b"%d, sample %d" % (item, k), logprob=-1.0, tokens=3, sample=k) for k in range(2)
            ],
        )

    @staticmethod
    def scored(row):
        assert [c.text for c in row.captions] == [b"%d, sample %d" % (row.item, k) for k in range(2)], row
        record = store_pb2.Record(item=row.item)
        for c in row.captions:
            record.captions.add().CopyFrom(c)
            record.captions[-1].has_itm, record.captions[-1].itm = True, (row.item % 100) / 100
        for kind, array, dtype in (
            (wire_pb2.EMBEDDING_QUERY, query_of(row.item), wire_pb2.DTYPE_F32),
            (wire_pb2.EMBEDDING_ITC, itc_of(row.item), wire_pb2.DTYPE_F16),
        ):
            record.embeddings.add(kind=kind, dtype=dtype, rows=array.shape[0], cols=array.shape[1],
                                  data=array.tobytes())
        return record

    def answer(self, lease, records, out):
        envelope = wire_pb2.Envelope(version=2, n_row_frames=1, n_rows=len(records),
                                     result=wire_pb2.Result(lease=lease))
        frames = []
        if out is not None and len(out):
            data = np.repeat(np.asarray(out, "<f4")[:, None], WIDTH, 1).tobytes()
            carried = (
                dict(transport=wire_pb2.TRANSPORT_FRAME, n_frames=1)
                if len(data) > 4096
                else dict(transport=wire_pb2.TRANSPORT_INLINE, inline_data=data)
            )
            envelope.tensors.add(
                dtype=wire_pb2.DTYPE_F32, shape=[len(out), WIDTH], xxh3=0, **carried
            )  # nobody here verifies the hash
            frames = [data] if "n_frames" in carried else []
        self.socket.send_multipart([envelope.SerializeToString(), b"".join(delimited(r) for r in records), *frames])


class MortalWorker(PythonWorker):
    host, window = socket.gethostname().encode(), 256

    def work(self, socket, envelope, frames):
        if self.poison & {row.item for row in item_rows(envelope, frames)}:
            os.kill(os.getpid(), signal.SIGKILL)
        super().work(socket, envelope, frames)


if __name__ == "__main__":
    if sys.argv[2] == "--dies-of":
        MortalWorker(sys.argv[1], wire_pb2.STAGE_LLM, {int(sys.argv[3])}).run()
    GraphWorker(sys.argv[1], int(sys.argv[2])).run()
