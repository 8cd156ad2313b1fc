"""A worker of the last stage, written with pyzmq and generated classes from proto/README.md alone."""

import os
import random
import threading
import time

import zmq
from harness import delimited
from proto import store_pb2, wire_pb2


class PythonWorker(threading.Thread):
    """Answers every item with the caption "python"; says FAILURE for a unit that holds a poisoned item."""

    def __init__(self, endpoint, stage, poison=()):
        super().__init__(daemon=True)
        self.endpoint, self.stage, self.poison = endpoint, stage, set(poison)
        self.ending = threading.Event()

    def stop(self):
        self.ending.set()
        self.join(10)

    def run(self):
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 500)
        socket.connect(self.endpoint)
        self.say(socket, hello=wire_pb2.Hello(role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=b"python", boot_nonce=random.getrandbits(63),
                                              pid=os.getpid(), stage=self.stage, device=b"null", dtype=wire_pb2.DTYPE_F32, model=b"python",
                                              window_items=64, window_bytes=1 << 20))
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
        items = []
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
            items.append(store_pb2.Item.FromString(data[at:at + n]).item)
            at += n
        if self.poison & set(items):
            self.say(socket, failure=wire_pb2.Failure(lease=envelope.work.lease, code=b"poison", text=b"poison among the items"))
            return
        rows = b"".join(delimited(store_pb2.Record(item=i, captions=[store_pb2.Caption(text=b"python", logprob=-1.0, tokens=1)])) for i in items)
        answer = wire_pb2.Envelope(version=2, n_row_frames=1, n_rows=len(items), result=wire_pb2.Result(lease=envelope.work.lease))
        socket.send_multipart([answer.SerializeToString(), rows])

    @staticmethod
    def say(socket, **body):
        envelope = wire_pb2.Envelope(version=2)
        for name, value in body.items():
            getattr(envelope, name).SetInParent()
            getattr(envelope, name).CopyFrom(value)
        socket.send_multipart([envelope.SerializeToString()])
