"""Clients and workers nobody here wrote, garbage, and null workers through the real broker."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import zlib

import lmdb
import numpy as np
import pytest
import zmq
from harness import BUILD, Client, Cluster, Refused, blipline, export, null_nodes, store_rows, undelimited, wait_for
from null_worker import PythonWorker, caption_fails, encode_fails, itc_of, query_of, score_graph, score_recipe
from proto import store_pb2, wire_pb2


def items(n):
    return [(b"k%06d" % i, b"/nowhere/%06d.jpg" % i) for i in range(n)]


def test_null_workers_fill_a_store_from_a_python_client(folder):
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = Client(cluster.endpoint)
        welcome = client.hello()
        assert welcome.epoch and welcome.version == 2
        client.open(folder / "s", null_nodes(), unit_items=64)
        for at in range(0, 5000, 1000):
            assert client.add(items(5000)[at:at + 1000]).n_items == at + 1000
        accepted = client.seal()
        assert accepted.n_items == 5000 and accepted.n_units == 79
        progress = client.wait_done()
        assert progress.n_done == 5000 and progress.n_failed == 0 and progress.n_units_done == 79
        client.close()
        for d in cluster.daemons[1:]:
            assert d.stop() == 0
        assert cluster.broker.stop() == 0
    records = store_rows(folder / "s")
    assert sorted(records) == list(range(5000)) and all(r.captions[0].text == b"null" and r.item == i for i,
                                                        r in records.items())
    assert blipline("verify", folder / "s").returncode == 0


def test_progress_numbers_add_up_at_every_sample(folder):
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=1)
        client.add(items(3000))
        client.seal()
        last = 0
        while True:
            p = client.progress()
            assert last <= p.n_done <= p.n_items == 3000 and p.n_units_done == p.n_done and p.n_failed == 0
            last = p.n_done
            if p.state == wire_pb2.JobProgress.STATE_DONE:
                break
        client.close()


def test_a_worker_written_in_python(folder):
    with Cluster(folder) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        cluster.start("qformer", device="null", null_shape="1,8")
        worker = PythonWorker(cluster.endpoint, wire_pb2.STAGE_LLM)
        worker.start()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=8)
        client.add(items(100))
        client.seal()
        client.wait_done()
        worker.stop()
        client.close()
    assert all(r["caption"] == "python" for r in export(folder / "s")[0])


def test_broker_killed_mid_job_goes_on_where_it_was(folder):
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=1)
        client.add(items(6000))
        client.seal()
        wait_for(lambda: client.progress().n_done > 50, step=0.001)
        cluster.broker.stop(signal.SIGKILL)
        client.close()
        before = len(store_rows(folder / "s"))
        assert 50 < before
        cluster.broker = cluster.start("broker", "broker2", **cluster.broker_conf)
        client = Client(cluster.endpoint)
        client.hello()
        opened = client.open(folder / "s", null_nodes(), unit_items=1, create=False)
        assert opened.n_items == 6000 and opened.n_done == before
        client.seal()
        assert client.wait_done().n_done == 6000
        client.close()
    assert sorted(store_rows(folder / "s")) == list(range(6000))


def test_items_are_done_again_when_a_client_asks(folder):
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=4)
        client.add(items(10))
        client.seal()
        client.wait_done()

        def again(*numbers):
            rows = [store_pb2.Item(item=i, key=b"ignored", path=b"/now/here", mtime_ns=5) for i in numbers]
            return client.ask(rows, job_again=wire_pb2.JobAgain(job=client.job)).job_rows_ok

        assert again(9, 0, 3).n_items == 10
        done = wait_for(lambda: (p := client.wait_done()).n_redone == 3 and p)
        assert (done.n_items, done.n_done, done.n_again, done.n_failed) == (10, 10, 0, 0)
        again(0, 1)
        assert wait_for(lambda: client.wait_done().n_redone == 5)
        with pytest.raises(Refused, match="item 10: is not in the manifest"):
            again(10)
        client.open(folder / "s", null_nodes(), unit_items=4, create=False)
        assert client.progress().n_redone == 5
        client.close()
    assert sorted(store_rows(folder / "s")) == list(range(10))
    assert "sound" in blipline("verify", folder / "s").stdout


def test_a_client_asks_what_a_store_has(folder):
    def find(client, keys=(), job=None, **more):
        client.seq += 1
        client.send(
            [store_pb2.Item(key=k) for k in keys],
            job_find=wire_pb2.JobFind(job=client.job if job is None else job, **more),
        )
        envelope, frames = client.receive()
        assert (
            envelope.seq == client.seq and envelope.job_found.job == client.job and envelope.n_row_frames == len(frames)
        )
        rows = undelimited(b"".join(frames), store_pb2.Source if more else store_pb2.Item)
        assert len(rows) == envelope.n_rows
        return rows

    def connect(cluster):
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=4)
        return client

    with Cluster(folder) as cluster:
        client = connect(cluster)
        assert find(client, sources=True) == [] and find(client, [b"a"]) == []
        sources = [
            store_pb2.Source(number=1, name=b"one", root=b"/one"),
            store_pb2.Source(number=2, name=b"two", root=b"/two", list=b"l.jsonl", columns=[b"c"]),
        ]
        client.ask(sources, job_rows=wire_pb2.JobRows(job=client.job, sources=True))
        client.ask(
            [
                store_pb2.Item(key=f"k{i % 7}".encode(), path=b"p", size_bytes=i, mtime_ns=5, source=1 + i % 2)
                for i in range(20)
            ],
            job_rows=wire_pb2.JobRows(job=client.job),
        )
        client.seal()
        assert find(client, sources=True) == sources
        found = [(i.item, i.key, i.size_bytes, i.source, i.path) for i in find(client, [b"k3", b"none", b"k3"])]
        assert found == [(3, b"k3", 3, 2, b""), (10, b"k3", 10, 1, b""), (17, b"k3", 17, 2, b"")]
        with pytest.raises(Refused, match="is not open here"):
            find(client, [b"k"], job=99)
        client.close()
        for keys, more in (((), {}), ([b"k"] * 257, {}), ([b"k"], {"sources": True})):
            client = connect(cluster)
            with pytest.raises(Refused, match="job_find"):
                find(client, keys, **more)
            client.close()


def test_what_a_worker_had_no_memory_for_may_pass(folder):
    with Cluster(folder) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        cluster.start("qformer", device="null", null_shape="1,8")
        worker = PythonWorker(cluster.endpoint, wire_pb2.STAGE_LLM, poison=[2], code=b"memory")
        worker.start()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=4)
        client.add(items(4))
        client.seal()
        assert client.wait_done().n_failed == 1
        assert store_rows(folder / "s")[2].error.code == b"no_memory"  # blipline caption tries it again
        worker.poison = set()
        client.ask([store_pb2.Item(item=2, key=b"k", path=b"/p")], job_again=wire_pb2.JobAgain(job=client.job))
        assert wait_for(lambda: client.wait_done().n_failed == 0)
        worker.stop()
        client.close()
    assert store_rows(folder / "s")[2].captions[0].text == b"python"


def test_garbage_does_not_disturb_the_others(folder):
    seed = int(os.environ.get("SEED", random.getrandbits(32)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    with Cluster(folder) as cluster:
        cluster.null_workers()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=1)
        client.add(items(2000))
        client.seal()
        for n in range(200):
            socket = zmq.Context.instance().socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 200)
            socket.connect(cluster.endpoint)
            frames = [rng.randbytes(rng.choice((0, 1, 7, 100, 5000, 70000))) for _ in range(rng.randrange(1, 6))]
            if n % 3 == 0:
                frames[0] = wire_pb2.Envelope(
                    version=n % 5, n_row_frames=rng.randrange(5), n_rows=rng.randrange(1 << 30),
                    result=wire_pb2.Result(lease=wire_pb2.Lease(epoch=rng.getrandbits(64), id=n)),
                ).SerializeToString()
            if n % 3 == 1:
                frames[0] = wire_pb2.Envelope(version=2, n_row_frames=len(frames) - 1, n_rows=3,
                                              job_rows=wire_pb2.JobRows(job=1)).SerializeToString()
            socket.send_multipart(frames)
            socket.close()
        assert client.wait_done().n_done == 2000
        assert cluster.broker.process.poll() is None
        client.close()
        for d in cluster.daemons[1:]:
            assert d.process.poll() is None, d.text()


def test_a_stranger_and_another_version_are_told(folder):
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint, seconds=2)
        with pytest.raises(Refused, match="version"):
            client.ask(
                hello=wire_pb2.Hello(role=wire_pb2.Hello.ROLE_CLIENT, min_version=7, max_version=9, host=b"x",
                                     boot_nonce=1)
            )
        client.close()
        client = Client(cluster.endpoint, seconds=2)
        client.hello()
        with pytest.raises(Refused, match="may not send"):
            client.ask(credit=wire_pb2.Credit(window_items=1))
        client.close()


def test_the_endpoint_is_private_and_a_dead_brokers_socket_is_taken_over(folder):
    with Cluster(folder) as cluster:
        wait_for(lambda: os.path.exists(folder / "b"))
        time.sleep(0.2)
        assert os.stat(folder / "b").st_mode & 0o077 == 0
        second = cluster.start("broker", "second", endpoint=cluster.endpoint)
        assert second.process.wait(30) == 70 and "another broker" in second.text()
        cluster.broker.stop(signal.SIGKILL)
        cluster.broker = cluster.start("broker", "third", endpoint=cluster.endpoint)
        client = Client(cluster.endpoint)
        client.hello()
        client.close()


def test_rows_behind_refused_ones_are_refused_too(folder):
    """They are not kept for a later client, whose first item would be theirs."""
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", null_nodes(), unit_items=4)
        batches = [
            [store_pb2.Item(key=k, path=p) for k, p in items(n)] for n in (40000, 2, 5, 1)
        ]  # the first keeps the others waiting
        batches[1][1].key = b""
        for rows in batches:
            client.seq += 1
            client.send(rows, job_rows=wire_pb2.JobRows(job=client.job))
        assert client.receive()[0].job_rows_ok.n_items == 40000
        for _ in batches[1:]:
            with pytest.raises(Refused):
                client.receive()
        client.close()
        client = Client(cluster.endpoint)
        client.hello()
        assert client.open(folder / "s", null_nodes(), unit_items=4).n_items == 40000
        assert client.add([(b"late%d" % i, b"/l") for i in range(2)]).n_items == 40002
        assert client.add([(b"later%d" % i, b"/l") for i in range(2)]).n_items == 40004
        assert client.seal().n_items == 40004
        client.close()
        assert cluster.broker.stop() == 0
    assert blipline("verify", folder / "s").returncode == 0


def test_what_a_configuration_check_lets_pass_can_start(folder):
    """The largest numbers that it allows."""
    with Cluster(folder) as cluster:
        for role, more in (
            ("encoder", {}),
            ("encoder", {"device": "null"}),
            ("qformer", {"device": "null"}),
            ("llm", {"device": "null"}),
        ):
            most = {}
            for key in ("window_items", "batch"):
                conf = folder / "over.conf"
                conf.write_text(f"{key} = 99999999\n")
                done = subprocess.run(
                    [str(BUILD / f"blipline-{role}"), "-n", "-f", str(conf)],
                    capture_output=True, text=True, check=False, timeout=30,
                )
                assert done.returncode == 78
                most[key] = re.search(r"0 (?:to|\.\.) (\d+)", done.stderr)[1]
            if not more:
                del most["batch"]  # pictures would take this machine's memory
            daemon = cluster.start(role, f"{role}{len(cluster.daemons)}", **most, **more)
            wait_for(lambda: "event=ready" in daemon.text() or daemon.process.poll() is not None)
            assert daemon.process.poll() is None and daemon.stop() == 0, daemon.text()


def test_a_client_shuts_the_broker_down(folder):
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        assert client.ask(shutdown=wire_pb2.Shutdown()).WhichOneof("body") == "bye"
        client.close()
        assert cluster.broker.process.wait(30) == 0


# -- caption + score --


class GraphWorkers:
    """Processes that play all stages of the score graph; what they have to say is in their logs."""

    def __init__(self, folder, endpoint):
        self.folder, self.endpoint, self.running, self.logs = folder, endpoint, [], []

    def start(self, stage):
        self.logs.append(self.folder / f"python{len(self.logs)}.log")
        with open(self.logs[-1], "wb") as log:
            program = str(pathlib.Path(__file__).with_name("null_worker.py"))
            self.running.append(
                (stage, subprocess.Popen([sys.executable, program, self.endpoint, str(stage)], stdout=log, stderr=log))
            )

    def start_all(self):
        for stage in (wire_pb2.STAGE_ENCODE, wire_pb2.STAGE_QFORMER, wire_pb2.STAGE_LLM):
            self.start(stage)
        return self

    def kill(self, n):
        stage, process = self.running.pop(n)
        process.kill()
        process.wait()
        return stage

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        while self.running:
            self.kill(0)

    def complaints(self):
        return "".join(log.read_text() for log in self.logs)


def stored_embeddings(path, table):
    found = {}
    env = lmdb.open(str(path), readonly=True, max_dbs=16, lock=False)
    with env.begin() as txn:
        for key, value in txn.cursor(env.open_db(table, txn, create=False)):
            assert zlib.crc32(value[:-5]) == int.from_bytes(value[-4:], "little")
            e = store_pb2.Embedding.FromString(value)
            found[int.from_bytes(key, "big")] = np.frombuffer(
                e.data, "<f4" if e.dtype == wire_pb2.DTYPE_F32 else "<f2"
            ).reshape(e.rows, e.cols)
    env.close()
    return found


def check_scores(path, n):
    records, query, itc = store_rows(path), stored_embeddings(path, b"query"), stored_embeddings(path, b"itc")
    assert sorted(records) == list(range(n))
    good = [i for i in range(n) if not encode_fails(i) and not caption_fails(i)]
    assert sorted(query) == sorted(itc) == good
    for i, r in records.items():
        assert r.error.code == (b"truncated" if encode_fails(i) else b"nolang" if caption_fails(i) else b"")
        assert [c.text for c in r.captions] == ([b"%d, sample %d" % (i, k) for k in range(2)] if i in query else [])
        assert all(c.has_itm and abs(c.itm - i % 100 / 100) < 1e-6 for c in r.captions)
        assert not r.embeddings
    assert all((query[i] == query_of(i)).all() and (itc[i] == itc_of(i)).all() for i in good)
    done = blipline("verify", path)
    assert f"{len(good)} query, {len(good)} itc embeddings" in done.stdout


def open_scores(cluster, folder, n, create=True):
    client = Client(cluster.endpoint)
    client.hello()
    client.open(folder / "s", score_graph(), unit_items=16, create=create, **score_recipe())
    if create:
        client.add(items(n))
    client.seal()
    return client


def test_captions_are_scored_in_the_same_job(folder):
    with Cluster(folder) as cluster, GraphWorkers(folder, cluster.endpoint).start_all() as workers:
        client = open_scores(cluster, folder, 700)
        progress = client.wait_done()
        assert progress.n_failed == sum(encode_fails(i) or caption_fails(i) for i in range(700))
        assert [s.failures + s.lease_expiries for s in progress.stages] == [0] * 4 and workers.complaints() == ""
        client.close()
        assert cluster.broker.stop() == 0
    check_scores(folder / "s", 700)


def test_scores_are_committed_once_through_kills(folder):
    seed = int(os.environ.get("SEED", random.getrandbits(32)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    n = 6000
    with Cluster(folder, max_attempts=100) as cluster, GraphWorkers(folder, cluster.endpoint).start_all() as workers:
        client = open_scores(cluster, folder, n)
        for k in range(6):
            before = client.progress().n_done
            wait_for(lambda: client.progress().n_done > before, step=0.01)
            if k % 3 == 2:
                cluster.broker.stop(signal.SIGKILL)
                client.close()
                assert sorted(store_rows(folder / "s")) == sorted(set(store_rows(folder / "s")))
                cluster.broker = cluster.start("broker", f"broker{k}", **cluster.broker_conf)
                client = open_scores(cluster, folder, n, create=False)
            else:
                workers.start(workers.kill(rng.randrange(3)))
        progress = client.wait_done(120)
        assert progress.n_done == n and workers.complaints() == ""
        client.close()
        assert cluster.broker.stop() == 0
    check_scores(folder / "s", n)


class Overeager(PythonWorker):
    @staticmethod
    def record(item):
        record = PythonWorker.record(item)
        record.embeddings.add(kind=wire_pb2.EMBEDDING_CLS, dtype=wire_pb2.DTYPE_F32, rows=1, cols=2, data=bytes(8))
        return record


def test_embeddings_that_were_not_asked_for_are_a_bad_result(folder):
    with Cluster(folder, max_attempts=1) as cluster:
        worker = Overeager(cluster.endpoint, wire_pb2.STAGE_LLM)
        worker.start()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", [wire_pb2.Node(stage=wire_pb2.STAGE_LLM)], unit_items=2)
        client.add(items(3))
        client.seal()
        assert client.wait_done().n_failed == 3
        worker.stop()
        client.close()
    for r in store_rows(folder / "s").values():
        assert r.error.code == b"quarantined" and b"embedding cls was not asked for" in r.error.message


def test_graphs_must_give_the_embeddings_that_the_recipe_asks_for(folder):
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        with pytest.raises(Refused, match="no node gives the embedding query"):
            client.open(folder / "s", null_nodes(), **score_recipe())
        with pytest.raises(Refused, match="wants no embedding"):
            client.open(folder / "s", score_graph())
        client.close()


def test_recipes_that_no_worker_could_do_are_refused(folder):
    decode = dict(max_new_tokens=8, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1, temperature=1,
                  top_p=1)
    llm, qformer = wire_pb2.Node(stage=wire_pb2.STAGE_LLM), wire_pb2.Node(stage=wire_pb2.STAGE_QFORMER)
    refused = [
        (null_nodes(), dict(prompts=[b"a photo of", b"a {photo of"]), "prompt 2.*{ without }"),
        (
            null_nodes(),
            dict(prompts=[b"a", b"b"], decode=wire_pb2.Decode(**{**decode, "sample": True, "n_return": 17})),
            "2 prompts of 17 captions",
        ),
        (null_nodes(), dict(decode=None), "generates nothing"),
        ([wire_pb2.Node(stage=wire_pb2.STAGE_LLM, tasks=wire_pb2.TASK_PROJECT)], {}, "node 0 is llm with tasks"),
        ([llm, qformer], {}, "node 1 is qformer with tasks 0x0"),
        ([llm, wire_pb2.Node(stage=wire_pb2.STAGE_QFORMER, tasks=wire_pb2.TASK_SCORE)], {}, "neither itc nor itm"),
    ]
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        for nodes, recipe, why in refused:
            with pytest.raises(Refused, match=why):
                client.open(folder / "s", nodes, **recipe)
        client.open(
            folder / "s", null_nodes(), prompts=[b"a", b"b"],
            decode=wire_pb2.Decode(**{**decode, "sample": True, "n_return": 16}),
        )
        client.close()


class Rowless(PythonWorker):
    @staticmethod
    def record(item):
        record = PythonWorker.record(item)
        record.embeddings.add(kind=wire_pb2.EMBEDDING_CLS, dtype=wire_pb2.DTYPE_F32, rows=0, cols=2)
        return record


def test_embeddings_without_rows_are_a_bad_result(folder):
    with Cluster(folder, max_attempts=1) as cluster:
        worker = Rowless(cluster.endpoint, wire_pb2.STAGE_QFORMER)
        worker.start()
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", [wire_pb2.Node(stage=wire_pb2.STAGE_QFORMER, tasks=wire_pb2.TASK_CLS)], unit_items=2,
                    embeddings=[wire_pb2.EmbeddingSpec(kind=wire_pb2.EMBEDDING_CLS, dtype=wire_pb2.DTYPE_F32)])
        client.add(items(2))
        client.seal()
        assert client.wait_done().n_failed == 2
        worker.stop()
        client.close()
    assert all(b"embedding cls without rows" in r.error.message for r in store_rows(folder / "s").values())


def test_a_job_that_nobody_can_do_says_what_it_wants(folder):
    with Cluster(folder) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        client = Client(cluster.endpoint)
        client.hello()
        nodes = null_nodes()
        nodes[0].fingerprint, nodes[0].model = b"\x5a" * 16, b"blip2-other"
        wait_for(lambda: "worker_hello" in cluster.broker.text())
        client.open(folder / "s", nodes, dtype_encode=wire_pb2.DTYPE_F32)
        client.add(items(4))
        client.seal()
        wanted = "needs an encode worker of blip2-other, fp32: none is connected; "
        text = wait_for(lambda: client.progress().text, 20).decode()
        assert text == wanted + "1 of another model is", text
        assert "event=unschedulable" in cluster.broker.text()
        late = cluster.start(
            "encoder", name="late", device="null", null_shape="1,8"
        )  # not refused: a job for it may come
        wait_for(lambda: "event=worker_idle" in cluster.broker.text())
        wait_for(lambda: client.progress().text.decode() == wanted + "2 of another model are")
        assert late.process.poll() is None
        cluster.start("qformer", device="null", null_shape="1,8")
        cluster.start("llm", device="null")
        client.open(folder / "other", null_nodes())
        client.add(items(4))
        client.seal()
        assert client.wait_done().n_done == 4
        client.close()
