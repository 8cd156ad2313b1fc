"""A broker that keeps its jobs in a state directory: they go on by themselves, whatever has ended the broker."""

import shutil

import pytest
from harness import Client, Cluster, Refused, null_nodes, store_rows, wait_for
from proto import wire_pb2

STATE = wire_pb2.JobProgress


def make_stores(folder, state, sizes):
    """Sealed stores of jobs 1, 2, ... that have no row in the table yet."""
    (state / "jobs").mkdir(parents=True)
    (folder / "private").mkdir()
    with Cluster(folder / "private") as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        for job, n in enumerate(sizes, 1):
            client.open(state / "jobs" / f"{job:08}.lmdb", null_nodes())
            client.add([(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(n)])
            client.seal()
        client.close()
        assert cluster.broker.stop() == 0


def progress(endpoint, job):
    client = Client(endpoint)
    client.hello()
    client.job = job
    try:
        return client.progress()
    finally:
        client.close()


def test_jobs_go_on_after_the_broker_was_killed(folder):
    state = folder / "state"
    make_stores(folder, state, [4000, 4])
    with Cluster(folder, state_dir=state) as cluster:
        assert "jobs=2 adopted=2 set_aside=0 missing=0" in wait_for(
            lambda: (t := cluster.broker.text()) and "event=job_table " in t and t
        )
        client = Client(cluster.endpoint)
        client.hello()
        with pytest.raises(Refused, match="state_dir") as refused:
            client.open(folder / "s.lmdb", null_nodes())
        assert refused.value.reason == wire_pb2.Refuse.REASON_NOT_ALLOWED
        assert progress(cluster.endpoint, 1).state == STATE.STATE_RUNNING
        cluster.null_workers()
        wait_for(lambda: "event=job_done job=2" in cluster.broker.text(), step=0.002)
        cluster.broker.process.kill()
        cluster.broker.process.wait()
        cluster.broker = cluster.start("broker", **cluster.broker_conf)
        wait_for(lambda: "event=job_done job=1" in cluster.broker.text())
        wait_for(lambda: cluster.broker.text().count("event=job_closed job=1"))
        assert cluster.broker.stop() == 0
        before = cluster.broker.text()
        cluster.broker = cluster.start("broker", **cluster.broker_conf)
        wait_for(lambda: cluster.broker.text().count("event=ready") == 3)
        assert progress_is_refused(cluster, 1) and progress_is_refused(cluster, 2)
        assert "jobs=2 adopted=0 set_aside=0 missing=0" in cluster.broker.text()[len(before):]
    assert len(store_rows(state / "jobs" / "00000001.lmdb")) == 4000


def submit(cluster, token, **more):
    """A client that has made the submission; what the broker says of its job."""
    client = Client(cluster.endpoint)
    client.hello()
    submission = wire_pb2.Submission(token=token, name=b"holidays")
    decode = wire_pb2.Decode(max_new_tokens=24, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1,
                             temperature=1, top_p=1)
    recipe = wire_pb2.Recipe(name=b"caption", decode=decode, **more)
    opened = client.ask(job_open=wire_pb2.JobOpen(submission=submission, recipe=recipe, nodes=null_nodes(),
                                                  unit_items=4)).job_opened
    client.job = opened.job
    return client, opened


def look_at(cluster, job):
    client = Client(cluster.endpoint)
    client.hello()
    client.job = client.ask(job_open=wire_pb2.JobOpen(job=job)).job_opened.job
    return client


def test_a_submission_that_is_sent_again_is_the_same_job(folder):
    state, token = folder / "state", b"0123456789abcdef"
    rows = [(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(400)]
    with Cluster(folder, state_dir=state) as cluster:
        for sent in range(5):
            client, opened = submit(cluster, token)
            assert opened.job == 1 and opened.n_items == 40 * sent
            client.add(rows[40 * sent:40 * sent + 40])
            if sent == 2:  # cut off half-way, by the end of the broker
                cluster.broker.process.kill()
                cluster.broker.process.wait()
                cluster.broker = cluster.start("broker", **cluster.broker_conf)
            client.close()
        with pytest.raises(Refused) as refused:
            submit(cluster, token, prompts=[b"a photo of"])
        assert refused.value.reason == wire_pb2.Refuse.REASON_RECIPE
        client, opened = submit(cluster, token)
        client.add(rows[200:])
        assert client.seal().n_items == 400
        client.close()
        client, opened = submit(cluster, b"another 16 bytes")
        assert opened.job == 2
        assert sorted(path.name for path in (state / "jobs").iterdir()) == ["00000001.lmdb", "00000002.lmdb"]
        cluster.null_workers()
        wait_for(lambda: "event=job_closed job=1" in cluster.broker.text().split("event=job_done job=1")[-1])
        client = look_at(cluster, 1)  # it has ended: it can be looked at, and sent again it is done
        assert client.wait_done().n_done == 400
        assert submit(cluster, token)[1].n_done == 400
        with pytest.raises(Refused) as refused:
            look_at(cluster, 3)
        assert refused.value.reason == wire_pb2.Refuse.REASON_UNKNOWN_JOB
    assert len(store_rows(state / "jobs" / "00000001.lmdb")) == 400


def progress_is_refused(cluster, job):
    """It has ended, so it is not opened."""
    with pytest.raises(Refused) as refused:
        progress(cluster.endpoint, job)
    return refused.value.reason == wire_pb2.Refuse.REASON_UNKNOWN_JOB


def test_a_job_without_its_store_and_a_store_that_is_none(folder):
    state = folder / "state"
    make_stores(folder, state, [4, 8, 12])
    with Cluster(folder, state_dir=state) as cluster:
        wait_for(lambda: "event=job_opened job=3" in cluster.broker.text())
        assert cluster.broker.stop() == 0
    shutil.rmtree(state / "jobs" / "00000002.lmdb")
    (state / "jobs" / "00000007.lmdb").mkdir()
    with Cluster(folder, state_dir=state) as cluster:
        wait_for(
            lambda: "event=job_table " in cluster.broker.text()
            and "jobs=3 adopted=0 set_aside=1 missing=1" in cluster.broker.text()
        )
        cluster.null_workers()
        wait_for(lambda: all(f"event=job_done job={job}" in cluster.broker.text() for job in (1, 3)))
        assert "event=job_failed job=2" in cluster.broker.text()
    assert (state / "jobs" / "00000007.lmdb.set-aside").is_dir()
