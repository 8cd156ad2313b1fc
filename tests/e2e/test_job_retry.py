"""RETRY: failed items of a job of the broker's table are done again."""

import random
import time

import pytest
from harness import Cluster, Refused, store_rows, wait_for
from null_worker import PythonWorker
from proto import store_pb2, wire_pb2
from test_job_table import STATE, connected, filled, is_refused, killed, look_at

CODES = {1: b"truncated", 3: b"too_large"}  # by the item's number modulo 4


class Failing(PythonWorker):
    """Fails half of the items until it is mended."""

    mended = False

    def record(self, item):
        code = not self.mended and CODES.get(item % 4)
        if code:
            return store_pb2.Record(item=item, error=store_pb2.ItemError(code=code, message=b"on purpose"))
        return super().record(item)


def with_worker(cluster, mended=False):
    cluster.worker = Failing(cluster.endpoint, wire_pb2.STAGE_LLM)
    cluster.worker.mended = mended
    cluster.worker.start()


@pytest.fixture
def cluster(folder):
    with Cluster(folder, state_dir=folder / "state", max_given_up=0) as c:
        c.start("encoder", device="null", null_shape="1,8")
        c.start("qformer", device="null", null_shape="1,8")
        with_worker(c)
        yield c
        c.worker.stop()


def ended(client, job):
    return wait_for(lambda: (row := client.jobs()[job]).ended_ms and row)


def test_failed_items_are_done_again(cluster, folder):
    assert filled(cluster, 1, 40) == 1
    client = connected(cluster)
    row = ended(client, 1)
    assert (row.n_done, row.n_failed, row.n_again) == (40, 20, 0)
    row = client.control(1, "retry", codes=[b"truncated", b"no_such_code"])
    assert (row.n_again, row.ended_ms, row.wanted, row.retrying) == (10, 0, 0, False)
    assert row.state == STATE.STATE_RUNNING
    row = ended(client, 1)  # they have failed again
    assert (row.n_failed, row.n_again) == (20, 0)
    cluster.worker.mended = True
    assert client.control(1, "retry", codes=[b"truncated"]).n_again == 10
    row = ended(client, 1)
    assert (row.n_failed, row.n_again) == (10, 0)

    viewer = look_at(cluster, 1)
    viewer.wait_done()
    assert client.control(1, "retry").n_again == 10
    wait_for(lambda: viewer.progress().n_redone == 30)
    row = ended(client, 1)
    assert (row.n_done, row.n_failed) == (40, 0)
    assert client.control(1, "retry").n_again == 0  # of nothing: it ends at once, while it is open
    assert ended(client, 1).state == STATE.STATE_DONE
    viewer.ask(job_close=wire_pb2.JobClose(job=1))
    assert client.control(1, "retry").n_again == 0 and ended(client, 1)
    assert is_refused("BAD_MESSAGE", client.control, 1, "pause", codes=[b"truncated"])
    assert is_refused("UNKNOWN_JOB", client.control, 2, "retry")
    records = store_rows(folder / "state/jobs/00000001.lmdb")
    assert sorted(records) == list(range(40)) and not any(r.HasField("error") for r in records.values())


def test_a_job_that_is_paused_or_was_cancelled(cluster):
    assert filled(cluster, 1, 8000) == 1
    client = connected(cluster)
    wait_for(lambda: client.jobs()[1].n_failed, step=0.002)
    client.control(1, "pause")
    wait_for(lambda: client.jobs()[1].state == 0)
    paused = client.jobs()[1]
    assert 0 < paused.n_done < 8000
    cluster.worker.mended = True
    row = client.control(1, "retry")
    assert (row.n_again, row.wanted, row.text) == (paused.n_failed, 0, b"")
    row = ended(client, 1)
    assert (row.n_done, row.n_failed, row.n_again) == (8000, 0, 0)
    assert filled(cluster, 2, 8000) == 2  # enough for it to be still under way
    client.control(2, "cancel")
    assert is_refused("NOT_ALLOWED", client.control, 2, "retry")
    assert client.jobs()[2].wanted == 2 and not client.jobs()[2].retrying


def test_a_retry_that_is_overtaken_by_another_action(cluster):
    """Each request is answered, though a viewer keeps the job open; what the last one asked for is true."""
    assert filled(cluster, 1, 40) == 1
    client = connected(cluster)
    ended(client, 1)
    cluster.worker.mended = True
    viewer = look_at(cluster, 1)

    def both(action):
        for name in ("RETRY", action):
            client.seq += 1
            client.send(job_control=wire_pb2.JobControl(job=1, action=f"ACTION_{name}"))
        answers = [client.receive()[0] for _ in range(2)]
        assert {a.seq for a in answers} == {client.seq - 1, client.seq}
        return client.jobs()[1]
    row = both("PAUSE")
    assert (row.wanted, row.n_failed) == (1, 20)
    client.control(1, "resume")
    row = ended(client, 1)
    assert (row.n_done, row.n_failed, row.retrying) == (40, 0, False)
    row = both("CANCEL")
    assert (row.wanted, row.retrying) == (2, False)
    viewer.ask(job_close=wire_pb2.JobClose(job=1))
    wait_for(lambda: client.jobs()[1].state == 0)
    assert client.control(1, "remove") is None


def test_a_retry_outlives_a_broker_that_is_killed_half_way(cluster, folder):
    """What the row says is carried out, whenever the broker is killed; another job goes on meanwhile."""
    seed = random.getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    assert filled(cluster, 1, 12000) == 1
    client = connected(cluster)
    assert ended(client, 1).n_failed == 6000
    assert filled(cluster, 2, 4000) == 2
    cluster.worker.stop()
    request = wire_pb2.JobControl(job=1, action=wire_pb2.JobControl.ACTION_RETRY)
    n_found = 0
    for _ in range(4):
        client.send(job_control=request)
        time.sleep(rng.random() * 0.06)
        client = killed(cluster)
        n_found += client.jobs()[1].retrying
    print("found half-way", n_found)
    with_worker(cluster, mended=True)

    def retried():
        try:
            return client.control(1, "retry")
        except Refused as refused:
            assert refused.reason == wire_pb2.Refuse.REASON_BUSY
    assert not wait_for(retried).retrying
    row = ended(client, 1)
    assert (row.n_done, row.n_failed, row.n_again) == (12000, 0, 0)
    assert ended(client, 2).n_done == 4000
    records = store_rows(folder / "state/jobs/00000001.lmdb")
    assert sorted(records) == list(range(12000)) and not any(r.HasField("error") for r in records.values())
