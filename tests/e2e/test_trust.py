"""Workers that lie, fail, hand back or hang beside good ones: no picture suffers, and whoever looks is told."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import (
    BUILD, PICTURES, SLOW, Caption, Client, Cluster, blipline, demo_nodes, delimited, many, null_nodes,
    programs_with, store_rows, wait_for,
)
from null_worker import PythonWorker, item_rows
from proto import store_pb2, wire_pb2

PAUSED = wire_pb2.JobProgress.STATE_PAUSED


class Worker(PythonWorker):
    """PythonWorker with an answer of its own to WORK; names what it holds in its heartbeats, unless `names` says no."""

    def __init__(self, endpoint, stage, answer=None, names=True):
        super().__init__(endpoint, stage)
        self.answer, self.names = answer, names
        self.n_works, self.held, self.refused = 0, [], threading.Event()

    def run(self):
        socket_ = self.connect()
        epoch, beat = 0, time.monotonic()
        while not self.ending.is_set():
            if socket_.poll(20):
                frames = socket_.recv_multipart()
                envelope = wire_pb2.Envelope.FromString(frames[0])
                kind = envelope.WhichOneof("body")
                if kind == "welcome":
                    epoch = envelope.welcome.epoch
                elif kind == "refuse":
                    self.reason = envelope.refuse.reason
                    self.refused.set()
                elif kind == "work":
                    self.n_works += 1
                    (self.answer or self.good)(self, socket_, envelope, frames)
            if epoch and time.monotonic() - beat > 0.2:
                beat = time.monotonic()
                self.say(
                    socket_,
                    heartbeat=wire_pb2.Heartbeat(epoch=epoch, progress=1, lease_ids=self.held if self.names else []),
                )
        self.say(socket_, bye=wire_pb2.Bye())
        socket_.close()

    @staticmethod
    def good(self, socket_, envelope, frames):
        time.sleep(0.01)
        self.work(socket_, envelope, frames)


def fail(self, socket_, envelope, frames):
    self.say(
        socket_,
        failure=wire_pb2.Failure(lease=envelope.work.lease, code=b"broken", text=b"the card has fallen off the bus"),
    )


def hand_back(self, socket_, envelope, frames):
    self.say(socket_, return_lease=getattr(wire_pb2, "Return")(lease=envelope.work.lease))


def bad_rows(self, socket_, envelope, frames):
    rows = delimited(self.record(10**9))
    answer = wire_pb2.Envelope(version=2, n_row_frames=1, n_rows=1, result=wire_pb2.Result(lease=envelope.work.lease))
    socket_.send_multipart([answer.SerializeToString(), rows])


def keep(self, socket_, envelope, frames):
    self.held.append(envelope.work.lease.id)


def corrupt(self, socket_, envelope, frames):
    """Features whose bytes do not match their checksum."""
    items = [row.item for row in item_rows(envelope, frames)]
    answer = wire_pb2.Envelope(version=2, n_row_frames=1, n_rows=len(items),
                               result=wire_pb2.Result(lease=envelope.work.lease))
    answer.tensors.add(
        dtype=wire_pb2.DTYPE_F32, shape=[len(items), 257, 192], transport=wire_pb2.TRANSPORT_FRAME,
        n_frames=1, xxh3=1234,
    )
    socket_.send_multipart(
        [
            answer.SerializeToString(),
            b"".join(delimited(store_pb2.Record(item=i)) for i in items),
            b"\0" * (len(items) * 257 * 192 * 4),
        ]
    )


def null_job(cluster, folder, n, unit):
    cluster.start("encoder", device="null", null_shape="1,8")
    cluster.start("qformer", device="null", null_shape="1,8")
    client = Client(cluster.endpoint)
    client.hello()
    client.open(folder / "s", null_nodes(), unit_items=unit)
    client.add([(b"%d" % i, b"/none/%d" % i) for i in range(n)])
    client.seal()
    return client


@pytest.mark.parametrize("how,counter", [(fail, "failures"), (hand_back, "returns"), (bad_rows, "bad_results")])
def test_a_worker_that_does_everything_wrong_ruins_nothing(folder, how, counter):
    with Cluster(folder, log_level="info") as cluster:
        bad = Worker(cluster.endpoint, wire_pb2.STAGE_LLM, how)
        good = Worker(cluster.endpoint, wire_pb2.STAGE_LLM)
        bad.start()
        good.start()
        wait_for(lambda: cluster.broker.text().count("worker_hello") == 2)
        client = null_job(cluster, folder, 2000, 10)
        progress = client.wait_done(60)
        assert progress.n_failed == 0 and progress.n_given_up == 0
        assert getattr(progress.stages[2], counter) > 0
        assert bad.n_works < 25, "it is slowed down"
        assert progress.broker.benches == 1 and progress.stages[2].benched == 1
        assert "event=worker_benched" in cluster.broker.text()
        client.close()
        bad.stop()
        good.stop()
        assert cluster.broker.stop() == 0
        assert (
            re.search(rf"event=counters .*{counter}=[1-9]", cluster.broker.text())
            and "benches=1" in cluster.broker.text()
        )
    assert all(r.captions[0].text == b"python" for r in store_rows(folder / "s").values())
    attempts = json.loads(blipline("stats", folder / "s", "--json").stdout)["failed_attempts"]
    assert attempts == 0 if counter == "returns" else attempts > 0


def test_a_benched_worker_that_has_come_to_its_senses_works_again(folder):
    with Cluster(folder, log_level="info", max_given_up="0") as cluster:
        worker = Worker(cluster.endpoint, wire_pb2.STAGE_LLM, fail)
        worker.start()
        wait_for(lambda: "worker_hello" in cluster.broker.text())
        client = null_job(cluster, folder, 100, 4)
        text = wait_for(lambda: client.progress().text, 30).decode()
        assert re.fullmatch(r"needs a llm worker: the only one is benched; \d+ failures in a row, the last: "
                            r"\w+: .*fallen off the bus.*", text), text
        worker.answer = None
        progress = client.wait_done(60)
        assert (
            progress.n_failed < 100 and "event=worker_back" in cluster.broker.text() and progress.stages[2].benched == 0
        )
        client.close()
        worker.stop()


def test_items_that_nobody_can_do_pause_the_job_before_they_are_written_down(folder):
    with Cluster(folder, log_level="info", max_given_up="8") as cluster:
        worker = Worker(cluster.endpoint, wire_pb2.STAGE_LLM, fail)
        worker.start()
        wait_for(lambda: "worker_hello" in cluster.broker.text())
        client = null_job(cluster, folder, 24, 4)
        progress = wait_for(lambda: (p := client.progress()).state == PAUSED and p, 60)
        assert progress.n_done == 0
        assert b"fallen off the bus" in progress.text, progress.text
        worker.answer = None
        client.open(folder / "s", null_nodes(), unit_items=4)  # goes on
        assert client.wait_done(60).n_failed == 0
        client.close()
        worker.stop()


@pytest.mark.parametrize("unit", [1, 4])
def test_a_tensor_that_is_not_what_its_checksum_says_is_made_again(folder, unit):
    with Cluster(folder, log_level="info") as cluster:
        for role in ("qformer", "llm"):
            cluster.start(role, threads=1)
        bad = Worker(cluster.endpoint, wire_pb2.STAGE_ENCODE, corrupt)
        bad.start()
        wait_for(lambda: cluster.broker.text().count("worker_hello") == 3)
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=unit)
        client.add([(p.name.encode(), os.fsencode(p)) for p in PICTURES[:24]])
        client.seal()
        wait_for(lambda: client.progress().stages[0].tensors_refused >= 3)
        cluster.start("encoder", threads=1)
        progress = client.wait_done(60)
        assert progress.n_failed == 0 and progress.stages[1].failures == 0
        assert progress.stages[0].tensors_refused == progress.broker.lost >= 3
        client.close()
        bad.stop()
    assert all(r.captions for r in store_rows(folder / "s").values())


def test_a_worker_that_keeps_its_units_for_ever_is_cut_off(folder):
    with Cluster(folder, log_level="info", lease="1s", stall=f"{2 * SLOW}s") as cluster:
        bad = Worker(cluster.endpoint, wire_pb2.STAGE_LLM, keep)
        bad.start()
        wait_for(lambda: "worker_hello" in cluster.broker.text())
        client = null_job(cluster, folder, 200, 10)
        wait_for(lambda: bad.n_works > 0)
        good = Worker(cluster.endpoint, wire_pb2.STAGE_LLM)
        good.start()
        assert bad.refused.wait(20 * SLOW) and bad.reason == wire_pb2.Refuse.REASON_STALLED
        progress = client.wait_done(30)
        assert progress.n_failed == 0 and progress.stages[2].stalls == progress.broker.cut_off == 1
        assert [(h.host, h.pid, h.stage) for h in progress.hung] == [(b"python", os.getpid(), wire_pb2.STAGE_LLM)]
        client.close()
        bad.stop()
        good.stop()


def test_a_worker_that_hangs_is_ended_by_the_command_that_started_it(folder):
    source = many(folder / "in", 4)
    short = (
        f'{{ cat "$2"; echo "lease = {2 * SLOW}s"; echo "heartbeat = 200ms"; }} > "$2.short"\nexec'
        f' {BUILD}/blipline-broker -f "$2.short"\n'
    )
    command = programs_with(folder, "broker", short)  # leases are short whatever its configuration says
    run = Caption(source, folder / "s", "--unit", "4", "--json", program=command)
    try:
        run.at_least(8)
        pid = run.roles()["llm"]
        os.kill(pid, signal.SIGSTOP)
        code, out, err = run.end(120)
        assert code == 0, err
        assert "the llm hangs" in err and "starting another one" in err
        report = json.loads(out)
        assert report["failed"] == report["given_up"] == 0 and report["broker"]["refusals"] == 0
        assert sum(s["lease_expiries"] + s["failures"] for s in report["stages"]) > 0
    finally:
        run.kill()


def test_a_worker_feeds_the_watchdog_of_whoever_started_it(folder):
    """As systemd asks with WatchdogSec: READY=1 when it is there, WATCHDOG=1 while the compute thread gets on."""
    path = folder / "notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(20 * SLOW)
    conf = folder / "encoder.conf"
    conf.write_text(f"endpoint = ipc://{folder}/nobody\ndevice = null\nnull_shape = 1,8\n")
    env = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000000"}
    worker = subprocess.Popen([str(BUILD / "blipline-encoder"), "-f", str(conf)], env=env, stderr=subprocess.DEVNULL)
    try:
        said = [listener.recv(4096) for _ in range(3)]
        assert b"READY=1" in said and b"WATCHDOG=1" in said, said
    finally:
        worker.kill()
        worker.wait()
        listener.close()
