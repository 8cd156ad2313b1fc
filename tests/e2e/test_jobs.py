"""Jobs of one broker: opened, extended, closed, opened again, many at once; one that cannot go on harms no other."""

import os
import re

import pytest
from harness import Client, Cluster, Refused, null_nodes, preloaded, store_rows, wait_for
from proto import wire_pb2

# 10000 for the long run: prints what the broker holds before and after.
CYCLES = int(os.environ.get("BLIPLINE_JOB_CYCLES", "30"))

STATE = wire_pb2.JobProgress


def items(first, n):
    return [(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(first, first + n)]


def close(client, job=None):
    return client.ask(job_close=wire_pb2.JobClose(job=job or client.job)).job_close


def connect(cluster):
    client = Client(cluster.endpoint)
    client.hello()
    return client


def finish(client):
    """The progress of the job that is done. Asked without a pause, since there are thousands of them."""
    client.seal()
    return wait_for(lambda: (p := client.progress()).state == STATE.STATE_DONE and p, step=0.002)


def held_by(pid):
    """Resident anonymous KiB, maps of stores, descriptors."""
    status = open(f"/proc/{pid}/status").read()
    maps = open(f"/proc/{pid}/maps").read().splitlines()
    return (
        int(re.search(r"RssAnon:\s+(\d+)", status).group(1)), sum("data.mdb" in line for line in maps),
        len(maps), len(os.listdir(f"/proc/{pid}/fd")),
    )


def is_mapped(cluster, store):
    return str(store) in open(f"/proc/{cluster.broker.process.pid}/maps").read()


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path) as c:
        c.null_workers()
        yield c


def test_a_job_is_closed_opened_again_and_extended_many_times(cluster, tmp_path):
    client = connect(cluster)
    before = None
    for cycle in range(CYCLES):
        store = tmp_path / f"{cycle % 3}.lmdb"
        opened = client.open(store, null_nodes())
        assert opened.n_done == opened.n_items == 6 * (cycle // 3)
        client.add(items(opened.n_items, 4))
        assert finish(client).n_done == opened.n_items + 4
        client.add(items(opened.n_items + 4, 2))  # it was sealed, and is no more
        assert client.progress().state != STATE.STATE_DONE
        assert finish(client).n_done == opened.n_items + 6
        close(client)
        assert not is_mapped(cluster, store)
        if cycle == 0:
            with pytest.raises(Refused) as refused:
                client.progress()
            assert refused.value.reason == wire_pb2.Refuse.REASON_UNKNOWN_JOB
        if cycle == min(CYCLES // 10, 100):
            before = held_by(cluster.broker.process.pid)
    after = held_by(cluster.broker.process.pid)
    print(
        f"{CYCLES} cycles: RssAnon {before[0]} -> {after[0]} KiB, maps of stores {before[1]} -> {after[1]}, all maps"
        f" {before[2]} -> {after[2]}, descriptors {before[3]} -> {after[3]}"
    )
    assert after[1] == before[1] == 0
    assert after[3] <= before[3] and after[2] <= before[2] + 8
    assert after[0] <= before[0] * 1.2 + 4096
    for s in range(3):
        assert len(store_rows(tmp_path / f"{s}.lmdb")) == 6 * len(range(s, CYCLES, 3))


def test_three_hundred_jobs_are_open_at_once(cluster, tmp_path):
    client = connect(cluster)
    jobs = []
    for i in range(300):
        client.open(tmp_path / f"{i}.lmdb", null_nodes())
        jobs.append(client.job)
    for client.job in jobs:
        client.add(items(0, 3))
        client.seal()
    for client.job in jobs:
        assert wait_for(lambda: (p := client.progress()).state == STATE.STATE_DONE and p, step=0.002).n_done == 3
    assert held_by(cluster.broker.process.pid)[1] == 300
    client.close()  # none has them open any more, and all are done
    wait_for(lambda: held_by(cluster.broker.process.pid)[1] == 0)


def test_a_finished_job_is_closed_when_its_last_client_is_gone(cluster, tmp_path):
    store = tmp_path / "s.lmdb"
    first, second = connect(cluster), connect(cluster)
    first.open(store, null_nodes())
    second.open(store, null_nodes())
    assert first.job == second.job
    first.add(items(0, 8))
    first.seal()
    first.wait_done()
    close(first)
    assert second.progress().state == STATE.STATE_DONE  # it has the job open
    assert is_mapped(cluster, store)
    second.send(bye=wire_pb2.Bye())
    wait_for(lambda: not is_mapped(cluster, store))
    assert first.open(store, null_nodes()).n_done == 8


def test_a_job_goes_on_without_its_client(cluster, tmp_path):
    store = tmp_path / "s.lmdb"
    client = connect(cluster)
    client.open(store, null_nodes())
    client.add(items(0, 400))
    client.seal()
    client.close()
    wait_for(lambda: not is_mapped(cluster, store))
    assert len(store_rows(store)) == 400


def test_a_sealed_job_that_is_opened_again_ends_without_another_seal(tmp_path):
    store = tmp_path / "s.lmdb"
    with Cluster(tmp_path) as cluster:  # without workers nothing is ever done
        client = connect(cluster)
        client.open(store, null_nodes())
        client.add(items(0, 40))
        client.seal()
        close(client)
        assert client.open(store, null_nodes()).n_items == 40
        assert client.progress().state == STATE.STATE_RUNNING
        client.close()
        cluster.null_workers()
        wait_for(lambda: not is_mapped(cluster, store))
        assert len(store_rows(store)) == 40
        client = connect(cluster)
        client.open(store, null_nodes())
        assert client.wait_done().n_done == 40


def test_a_job_whose_client_has_gone_before_the_seal_is_closed(cluster, tmp_path):
    store = tmp_path / "s.lmdb"
    client = connect(cluster)
    client.open(store, null_nodes())
    client.add(items(0, 400))
    client.close()
    wait_for(lambda: not is_mapped(cluster, store))
    client = connect(cluster)
    opened = client.open(store, null_nodes())
    assert opened.n_items == 400
    client.add(items(400, 4))
    client.seal()
    assert client.wait_done().n_done == 404


def test_a_running_job_is_closed_by_its_client(tmp_path):
    with Cluster(tmp_path) as cluster:  # without workers nothing is ever done
        store = tmp_path / "s.lmdb"
        client = connect(cluster)
        client.open(store, null_nodes())
        client.add(items(0, 40))
        client.seal()
        cluster.start("encoder", device="null", null_shape="1,8")
        wait_for(lambda: client.progress().stages[0].items_done > 0)
        close(client)
        assert not is_mapped(cluster, store)
        cluster.start("qformer", device="null", null_shape="1,8")
        cluster.start("llm", device="null")
        assert client.open(store, null_nodes()).n_items == 40
        client.seal()
        assert client.wait_done().n_done == 40


def damage(store, key):
    """A row of the manifest is not what its checksum says."""
    path = store / "data.mdb"
    data = path.read_bytes()
    assert key in data
    path.write_bytes(data.replace(key, key[:-1] + b"?"))


def test_one_bad_store_fails_its_own_job_alone(tmp_path):
    with Cluster(tmp_path) as cluster:
        client = connect(cluster)
        good, bad = tmp_path / "good.lmdb", tmp_path / "bad.lmdb"
        client.open(bad, null_nodes())
        client.add(items(0, 40))
        client.seal()
        close(client)
        damage(bad, b"key-000021")
        client.open(good, null_nodes())
        good_job = client.job
        client.add(items(0, 4))
        assert client.open(bad, null_nodes()).n_items == 40  # its pages are sound
        bad_job = client.job
        progress = wait_for(lambda: (p := client.progress()).state == STATE.STATE_FAILED and p)
        assert b"unit 5" in progress.text and bytes(str(bad), "utf-8") in progress.text
        with pytest.raises(Refused, match="unit 5"):
            client.add(items(40, 4))
        cluster.null_workers()
        client.job = good_job
        client.seal()
        assert client.wait_done().n_done == 4
        assert client.open(bad, null_nodes()).job != bad_job  # it is tried again
        bad_job = client.job
        wait_for(lambda: client.progress().state == STATE.STATE_FAILED)
        close(client, bad_job)
        assert not is_mapped(cluster, bad) and is_mapped(cluster, good)
        assert cluster.broker.process.poll() is None


def one_fails(cluster, tmp_path, bad, spoil, says):
    """Two jobs with rows and no workers; the store of one is spoiled, then the workers come."""
    client = connect(cluster)
    jobs = {}
    for store in (bad, tmp_path / "good.lmdb"):
        client.open(store, null_nodes())
        client.add(items(0, 4000))
        client.seal()
        jobs[store] = client.job
    spoil()
    cluster.null_workers()
    client.job = jobs[bad]
    progress = wait_for(lambda: (p := client.progress()).state == STATE.STATE_FAILED and p)
    assert says in progress.text and bytes(str(bad), "utf-8") in progress.text
    client.job = jobs[tmp_path / "good.lmdb"]
    assert client.wait_done().n_done == 4000
    client.close()
    assert cluster.broker.stop() == 0
    assert "job_failed" in cluster.broker.text()


def test_an_error_of_the_disk_at_a_commit_fails_that_job_alone(tmp_path):
    folder = tmp_path / "faulty"
    folder.mkdir()
    with Cluster(tmp_path, broker_env={**preloaded("faulty_disk"), "FAULTY_DISK": str(folder)}) as cluster:
        one_fails(cluster, tmp_path, folder / "bad.lmdb", (folder / "faulty").touch, b"Input/output error")


def test_a_store_that_becomes_shorter_fails_its_job_alone(tmp_path):
    bad = tmp_path / "bad.lmdb"
    with Cluster(tmp_path) as cluster:
        one_fails(cluster, tmp_path, bad, lambda: os.truncate(bad / "data.mdb", 8192), b"data.mdb was truncated")
