"""`blipline top`: what a broker's workers and jobs do, which stage is the bottleneck, and what a job waits for."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
import zmq
from harness import BUILD, IMAGES, Client, Cluster, Refused, blipline, null_nodes, wait_for
from null_worker import PythonWorker
from proto import wire_pb2
from test_keys import KeyClient, KeyCluster, Keys

BLIPLINE = BUILD / "blipline"


class Slow(PythonWorker):
    host = b"slowhost"

    def work(self, *a):
        time.sleep(0.1)
        super().work(*a)


class Bad(PythonWorker):
    host = b"badhost"

    def work(self, socket, envelope, frames):
        self.say(socket, failure=wire_pb2.Failure(lease=envelope.work.lease, code=b"no_memory",
                                                  text=b"the card has fallen off the bus"))


def top(cluster):
    return json.loads(blipline("top", "--broker", cluster.endpoint, "--json").stdout)


def open_job(cluster, path, nodes, n=400, **recipe):
    client = Client(cluster.endpoint)
    client.hello()
    client.open(path, nodes, unit_items=10, **recipe)
    client.add([(b"%d" % i, b"/none/%d" % i) for i in range(n)])
    client.seal()
    return client


def test_top_names_the_bottleneck_the_benched_worker_and_what_a_job_waits_for(folder):
    with Cluster(folder) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        cluster.start("qformer", device="null", null_shape="1,8")
        workers = [kind(cluster.endpoint, wire_pb2.STAGE_LLM) for kind in (Slow, Bad)]
        for worker in workers:
            worker.start()
        running = open_job(cluster, folder / "running", null_nodes(), 4000)
        nodes = null_nodes()
        nodes[2].fingerprint, nodes[2].model = b"\x5a" * 16, b"blip2-flan-t5-xl"
        waiting = open_job(cluster, folder / "waiting", nodes, dtype_llm=wire_pb2.DTYPE_BF16)
        text = "needs a llm worker of blip2-flan-t5-xl, bf16: none is connected; 2 of another model are"
        wait_for(lambda: waiting.progress().text.decode() == text)
        wait_for(lambda: "event=worker_benched" in cluster.broker.text())
        seen = wait_for(lambda: (t := top(cluster)) and len(t["bottlenecks"]) == 2 and t, 30)

        texts = [b["text"] for b in seen["bottlenecks"]]
        assert texts[0] == "llm of blip2-flan-t5-xl, bf16 is the bottleneck: no worker is connected, 40 units wait"
        assert re.fullmatch(r"llm of python, fp32 is the bottleneck: 1 worker busy \d+ %, \d+ units wait", texts[1])
        jobs = {j["name"]: j for j in seen["jobs"]}
        assert jobs["waiting"]["text"] == text and jobs["waiting"]["state"] == "waiting"
        assert jobs["waiting"]["eta_s"] is None and jobs["waiting"]["stages"][2]["units_waiting"] == 40
        assert jobs["running"]["items_per_s"] > 1 and jobs["running"]["eta_s"] > 1
        rows = {w["host"]: w for w in seen["workers"]}
        bad, slow = rows["badhost"], rows["slowhost"]
        assert bad["state"] == "benched" and bad["reason"] == "no_memory: the card has fallen off the bus"
        assert bad["failures_in_row"] >= 6 and bad["items"] == 0
        assert slow["state"] == "working" and slow["busy"] > 0.5 and slow["items_per_s"] > 1 and not slow["reason"]
        assert slow["pid"] == os.getpid() and slow["device"] == "null" and slow["window_items"] == 64
        assert seen["broker"]["tensor_bytes"] > 0 and seen["broker"]["jobs"] == 2 and seen["broker"]["workers"] == 4

        page = blipline("top", "--broker", cluster.endpoint, "--once").stdout
        assert all(text in page for text in (*texts[:1], text, bad["reason"])), page
        for worker in workers:
            worker.stop()
        for client in (running, waiting):
            client.close()


def test_a_client_sees_all_workers_and_its_own_jobs(folder, monkeypatch):
    keys = Keys(folder / "keys")
    for name, role in (("alice", "clients"), ("bob", "clients"), ("root", "admins"), ("gpu", "workers")):
        keys.make(name, role)
    conf = folder / ".config" / "blipline" / "client.conf"
    conf.parent.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("BLIPLINE_BROKER", raising=False)
    with KeyCluster(folder, keys, state_dir=folder / "state") as cluster:
        def be(name):
            conf.write_text("".join(f"{k} = {v}\n" for k, v in {"broker": cluster.tcp, **keys.of(name)}.items()))

        cluster.worker("encoder", "e", "gpu", device="null", null_shape="1,8")
        for name in ("alice", "bob", "alice"):
            be(name)
            blipline("submit", IMAGES, "--device", "null")
        for name, mine, others in (("alice", [1, 3], 1), ("bob", [2], 2), ("root", [1, 2, 3], 0)):
            be(name)
            seen = wait_for(lambda: (t := json.loads(blipline("top", "--json").stdout)) and len(t["workers"]) and t)
            assert [j["job"] for j in seen["jobs"]] == mine and seen["broker"]["other_jobs"] == others
            assert seen["broker"]["jobs"] == 3 and [w["stage"] for w in seen["workers"]] == ["encode"]
            assert {j["owner"] for j in seen["jobs"]} == ({"alice", "bob"} if name == "root" else {name})
        worker = KeyClient(cluster.tcp, keys, "gpu")
        worker.send(hello=wire_pb2.Hello(role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=b"gpu",
                                         boot_nonce=7, stage=wire_pb2.STAGE_LLM, device=b"null", window_items=1,
                                         window_bytes=1, dtype=wire_pb2.DTYPE_F32))
        assert worker.receive()[0].WhichOneof("body") == "welcome"
        with pytest.raises(Refused, match="may not send fleet_query"):
            worker.ask(fleet_query=wire_pb2.FleetQuery(what=wire_pb2.FleetQuery.WHAT_JOBS))


def test_top_has_a_page_for_each_thousand_rows(folder):
    with Cluster(folder, log_level="warn") as cluster:
        context = zmq.Context()
        context.max_sockets = 2000
        sockets = [PythonWorker(cluster.endpoint, wire_pb2.STAGE_LLM).connect(context) for _ in range(1100)]
        seen = wait_for(lambda: (t := top(cluster)) and len(t["workers"]) == 1100 and t, 30)
        assert seen["stages"][0]["workers"] == 1100 == seen["broker"]["workers"]
        for socket in sockets:
            socket.close(linger=0)
        context.term()


class Screen:
    """A terminal of 80 x 24."""

    def __init__(self, *args):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execv(BLIPLINE, [BLIPLINE, *args])
        self.pid, self.text = pid, ""

    def read(self):
        while select.select([self.fd], [], [], 0)[0]:
            try:
                self.text += os.read(self.fd, 65536).decode()
            except OSError:
                break
        return self.text

    def end(self):
        try:
            return wait_for(lambda: (w := os.waitpid(self.pid, os.WNOHANG))[0] and [os.waitstatus_to_exitcode(w[1])])[0]
        finally:
            self.read()
            os.close(self.fd)


def test_top_on_a_terminal_goes_on_until_q_and_waits_for_a_broker_that_is_away(folder):
    with Cluster(folder) as cluster:
        screen = Screen("top", "--broker", cluster.endpoint, "--interval", "0.2")
        wait_for(lambda: "No worker is connected." in screen.read())
        assert screen.text.startswith("\x1b[?1049h")
        cluster.broker.stop(signal.SIGKILL)
        wait_for(lambda: "trying again" in screen.read())
        screen.text = ""
        cluster.broker = cluster.start("broker", name="again", **cluster.broker_conf)
        wait_for(lambda: "No worker is connected." in screen.read())
        os.write(screen.fd, b"q")
        assert screen.end() == 0 and screen.text.endswith("\x1b[?1049l")

        screen = Screen("top", "--broker", cluster.endpoint)
        wait_for(lambda: "No worker is connected." in screen.read())
        os.write(screen.fd, b"\x03")
        assert screen.end() == 0

        pages = subprocess.Popen([BLIPLINE, "top", "--broker", cluster.endpoint, "-i", "0.1"], stdout=subprocess.PIPE)
        for _ in range(2):
            while b"No worker is connected." not in pages.stdout.readline():
                pass
        pages.send_signal(signal.SIGTERM)
        assert pages.wait(10) == 128 + signal.SIGTERM
