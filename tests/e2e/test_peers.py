"""What peers may ask of a broker, and how much of it: nobody takes its memory, its descriptors or its disk from the
others."""

import os
import resource
import socket
import time

import pytest
import zmq
from harness import SLOW, Client, Cluster, Refused, blipline, logfmt, memory_mib, null_nodes, store_rows, wait_for
from proto import store_pb2, wire_pb2


def items(n, name="k"):
    return [(b"%s%06d" % (name.encode(), i), b"/nowhere/%06d.jpg" % i) for i in range(n)]


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connected(cluster, **more):
    client = Client(cluster.endpoint, **more)
    client.hello()
    return client


def test_rows_that_a_finished_job_accepts_are_done(folder):
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = connected(cluster)
        client.open(folder / "s", null_nodes(), unit_items=4)
        client.add(items(8))
        client.seal()
        assert client.wait_done().n_done == 8
        client.close()
        client = connected(cluster)
        opened = client.open(folder / "s", null_nodes(), unit_items=4)
        assert (opened.n_items, opened.n_done) == (8, 8)
        assert client.add(items(5, "new")).n_items == 13
        assert client.progress().state == wire_pb2.JobProgress.STATE_IMPORTING
        wait_for(lambda: client.progress().n_done == 12, 20)  # the full unit does not wait for the seal
        assert client.seal().n_items == 13
        assert client.wait_done(20).n_done == 13
        assert client.seal().n_items == 13 and client.wait_done(20).n_done == 13
        assert "core_refused" not in cluster.broker.text()
        client.close()
        assert cluster.broker.stop() == 0
    assert sorted(store_rows(folder / "s")) == list(range(13))
    assert "sound" in blipline("verify", folder / "s").stdout


def test_a_seal_behind_refused_rows_is_refused_too(folder):
    with Cluster(folder) as cluster:
        client = connected(cluster)
        client.open(folder / "s", null_nodes(), unit_items=4)
        batches = [[store_pb2.Item(key=k, path=p) for k, p in items(n)] for n in (20000, 2)]
        batches[1][1].key = b""
        for rows in batches:
            client.seq += 1
            client.send(rows, job_rows=wire_pb2.JobRows(job=client.job))
        client.seq += 1
        client.send(job_seal=wire_pb2.JobSeal(job=client.job))
        assert client.receive()[0].job_rows_ok.n_items == 20000
        for _ in range(2):
            with pytest.raises(Refused):
                client.receive()
        time.sleep(0.2)  # what arrives later may have been sent before the refusal was read
        with pytest.raises(Refused, match="open the job again"):
            client.add(items(1))
        with pytest.raises(Refused, match="open the job again"):
            client.seal()
        assert client.progress().state == wire_pb2.JobProgress.STATE_IMPORTING
        assert client.open(folder / "s", null_nodes(), unit_items=4).n_items == 20000
        assert client.add(items(2, "good")).n_items == 20002
        assert client.seal().n_items == 20002
        client.close()
        assert cluster.broker.stop() == 0
    assert "sound" in blipline("verify", folder / "s").stdout


def test_rows_without_an_answer_are_few(folder):
    """A client that does not wait is refused, and takes no memory."""
    with Cluster(folder, log_level="info") as cluster:
        pid = cluster.broker.process.pid
        client = connected(cluster)
        client.open(folder / "s", null_nodes(), unit_items=32)
        rows = [store_pb2.Item(key=b"k%07d" % i + b"k" * 3000, path=b"/p/" + b"x" * 8000) for i in range(1400)]
        client.socket.setsockopt(zmq.SNDHWM, 4)
        client.socket.setsockopt(zmq.SNDTIMEO, 20000 * SLOW)
        for n in range(40):  # of 15 MiB
            client.seq += 1
            client.send(rows, job_rows=wire_pb2.JobRows(job=client.job))
        reasons = []
        for n in range(40):
            try:
                client.receive()
            except Refused as refused:
                reasons.append(refused.reason)
                why = str(refused) if len(reasons) == 1 else why
        assert wire_pb2.Refuse.REASON_LIMIT in reasons and "client_messages" in why, (reasons, why)
        assert memory_mib(pid, "VmHWM") < 400 * SLOW, memory_mib(pid, "VmHWM")
        n = client.open(folder / "s", null_nodes(), unit_items=32).n_items
        assert n % 1400 == 0 and n == 1400 * (40 - len(reasons))
        assert client.add(items(1)).n_items == n + 1
        client.close()
        assert cluster.broker.stop() == 0


def test_who_goes_on_with_what_is_refused_is_cut_off_and_does_not_fill_the_log(folder):
    with Cluster(folder, log_level="info") as cluster:
        client, other = connected(cluster, seconds=3), connected(cluster)
        monitor = client.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for _ in range(20000):
            client.send(credit=wire_pb2.Credit(window_items=1))
        assert monitor.poll(5000 * SLOW), "the connection is still there"
        client.socket.disable_monitor()
        monitor.close()
        client.close()
        assert other.open(folder / "s", null_nodes()).n_items == 0
        other.close()
        text = cluster.broker.text()
        assert "event=peer_dropped" in text and len(text) < 60000, len(text)
        client = connected(cluster)
        client.open(folder / "s", null_nodes())
        counters = client.progress().broker
        assert counters.closed == 1 and 50 <= counters.refusals < 20000
        client.close()
        again = connected(cluster)
        for n in range(3):  # the limit is one of time, and of each peer
            with pytest.raises(Refused, match="may not send"):
                again.ask(credit=wire_pb2.Credit(window_items=1))
        assert again.open(folder / "s", null_nodes()).n_items == 0
        again.close()


def test_a_broker_without_descriptors_refuses_and_goes_on(folder):
    with Cluster(folder, log_level="info") as cluster:
        client = connected(cluster)
        pid = cluster.broker.process.pid
        client.open(folder / "s", null_nodes())
        n_open = len(os.listdir(f"/proc/{pid}/fd"))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open + 100, n_open + 100))
        sockets, cpu = [], cpu_seconds(pid)
        for _ in range(400):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(1)
            one.connect(str(folder / "b"))
            sockets.append(one)
        time.sleep(1)
        assert cluster.broker.process.poll() is None, cluster.broker.text()
        assert client.add(items(4)).n_items == 4
        assert cpu_seconds(pid) - cpu < 0.8 * SLOW, cpu_seconds(pid) - cpu
        for one in sockets:
            one.close()
        later = wait_for(lambda: try_hello(cluster), 20)
        assert later.open(folder / "s", null_nodes()).n_items == 4
        later.close()
        client.close()
        assert cluster.broker.stop() == 0


def try_hello(cluster):
    client = Client(cluster.endpoint, seconds=1)
    try:
        client.hello()
        return client
    except zmq.Again:
        client.close()
        return None


def test_a_broker_takes_the_descriptors_that_it_may_have(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 64  # what is open here counts
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(few, hard), hard))
    try:
        cluster = Cluster(folder, log_level="info")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with cluster:
        connected(cluster).close()
        text = wait_for(lambda: "event=ready" in cluster.broker.text() and cluster.broker.text())
        assert f"peers={min(4096, min(hard, 65536) // 2)}" in text, text


def test_what_peers_say_stays_within_its_value_in_the_log(folder):
    text = 'a "quote" \\ n=1\nevent=forged msg="\t\r\x1b[2J\x01 é end\\'
    store = folder / 'of "us" \\ two\nlines'
    with Cluster(folder) as cluster:
        client = connected(cluster)
        client.open(store, null_nodes(), unit_items=4)
        worker = Client(cluster.endpoint)
        worker.send(
            hello=wire_pb2.Hello(
                role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=text.encode(),
                boot_nonce=1, pid=os.getpid(), stage=1, device=b'"', dtype=wire_pb2.DTYPE_F32,
                model=text.encode(), window_items=4, window_bytes=1 << 20,
            )
        )
        worker.receive()
        worker.send(
            failure=wire_pb2.Failure(lease=wire_pb2.Lease(epoch=1, id=1, job=1, count=1), code=b"word",
                                     text=text.encode())
        )
        wait_for(lambda: "unit_failed" in cluster.broker.text())
        lines = [logfmt(line) for line in cluster.broker.text().splitlines()]
    by_event = {line["event"]: line for line in lines}
    assert "forged" not in by_event
    assert by_event["unit_failed"]["msg"] == text
    assert by_event["job_opened"]["store"] == str(store)
    assert by_event["worker_hello"]["host"] == by_event["worker_hello"]["model"] == text
