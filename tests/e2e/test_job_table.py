"""A broker that keeps its jobs in a state directory: they go on by themselves, whatever has ended the broker."""

import json
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Client, Cluster, Refused, export, null_nodes, preloaded, store_rows, wait_for
from proto import store_pb2, wire_pb2

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


def submission(token, **more):
    named = wire_pb2.Submission(token=token, name=b"holidays")
    decode = wire_pb2.Decode(max_new_tokens=24, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1,
                             temperature=1, top_p=1)
    recipe = wire_pb2.Recipe(name=b"caption", decode=decode, **more)
    return wire_pb2.JobOpen(submission=named, recipe=recipe, nodes=null_nodes(), unit_items=4)


def submit(cluster, token, **more):
    """A client that has made the submission; what the broker says of its job."""
    client = Client(cluster.endpoint)
    client.hello()
    opened = client.ask(job_open=submission(token, **more)).job_opened
    client.job = opened.job
    return client, opened


def test_a_job_whose_store_is_being_opened_is_busy(folder):
    """A client tries again then, so the reason says so."""
    with Cluster(folder, state_dir=folder / "state") as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        for _ in range(2):
            client.send(job_open=submission(b"0123456789abcdef"))
        with pytest.raises(Refused, match="try again") as refused:
            for _ in range(2):
                client.receive()
        assert refused.value.reason == wire_pb2.Refuse.REASON_BUSY
        client.close()


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


def test_a_submission_that_several_clients_send_at_once_has_each_item_once(folder):
    """Whoever opened it last goes on from there. What others have sent meanwhile is refused, and they open it again."""
    seed = random.getrandbits(32)
    print("seed", seed)
    state, token = folder / "state", b"0123456789abcdef"
    rows = [(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(400)]
    overtaken = []

    def begun(cluster):
        client = connected(cluster)
        opened = wait_for(lambda: open_if_not_busy(client), step=0.01)
        client.job = opened.job
        return client, opened.n_items

    def open_if_not_busy(client):
        try:
            return client.ask(job_open=submission(token)).job_opened
        except Refused as refused:
            assert refused.reason == wire_pb2.Refuse.REASON_BUSY

    def send(cluster, rng):
        client, at = begun(cluster)
        while True:
            time.sleep(rng.random() * 0.02)
            try:
                if at == len(rows):
                    assert client.seal().n_items == len(rows)
                    return client.job
                n = rng.randrange(1, 60)
                client.add(rows[at:at + n])
                at = min(at + n, len(rows))
                if rng.random() < 0.9:
                    continue
            except Refused as refused:
                assert refused.reason == wire_pb2.Refuse.REASON_NOT_ALLOWED
                overtaken.append(client)
                time.sleep(rng.random() * 0.2)
            client.close()  # and what it was told is lost
            client, at = begun(cluster)

    with Cluster(folder, state_dir=state) as cluster, ThreadPoolExecutor(5) as pool:
        jobs = list(pool.map(lambda n: send(cluster, random.Random(seed + n)), range(5)))
        assert jobs == [1] * 5 and overtaken
        client = connected(cluster)
        assert list(client.jobs()) == [1] and client.jobs()[1].n_items == len(rows)
        cluster.null_workers()
        wait_for(lambda: client.jobs()[1].ended_ms and not client.jobs()[1].state)
        assert [path.name for path in (state / "jobs").iterdir()] == ["00000001.lmdb"]
        assert cluster.broker.stop() == 0
    lines = export(state / "jobs" / "00000001.lmdb")[1].splitlines()
    assert [json.loads(line)["key"] for line in lines] == [key.decode() for key, _ in rows]


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


# -- JobList, JobControl


def connected(cluster):
    client = Client(cluster.endpoint)
    client.hello()
    return client


def killed(cluster):
    """Another broker in the place of one that was killed; a client of it."""
    cluster.broker.process.kill()
    cluster.broker.process.wait()
    cluster.broker = cluster.start("broker", **cluster.broker_conf)
    return connected(cluster)


def filled(cluster, n, items):
    """The number of the sealed job of submission n."""
    client, opened = submit(cluster, b"%016d" % n)
    client.add([(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(items)])
    client.seal()
    client.ask(job_close=wire_pb2.JobClose(job=opened.job))
    client.close()
    return opened.job


def is_refused(reason, ask, *args, **more):
    with pytest.raises(Refused) as refused:
        ask(*args, **more)
    return refused.value.reason == getattr(wire_pb2.Refuse, f"REASON_{reason}")


def opened_again(client, jobs):
    """The rows, once all of these jobs are open."""
    def rows():
        all_rows = client.jobs()
        return all_rows if all(all_rows[job].state for job in jobs) else None
    return wait_for(rows)


def test_what_is_asked_of_a_job_outlives_the_broker(folder):
    state = folder / "state"
    with Cluster(folder, state_dir=state) as cluster:
        for n in range(1, 5):
            assert filled(cluster, n, 40) == n
        client = connected(cluster)
        rows = opened_again(client, [1, 2, 3, 4])
        assert [(r.n_items, r.n_done, r.state, r.name) for r in rows.values()] == [
            (40, 0, STATE.STATE_RUNNING, b"holidays")] * 4
        assert [r.job for r in client.listed(job_list=wire_pb2.JobList(from_job=3))[0]] == [3, 4]
        row = client.control(1, "pause")
        assert (row.wanted, row.text) == (1, b"paused on request")
        client = killed(cluster)
        rows = opened_again(client, [2, 3, 4])
        assert (rows[1].wanted, rows[1].state, rows[1].n_items) == (1, 0, 40)
        assert client.control(2, "priority", priority=300).priority == 300
        assert client.control(1, "priority", priority=7).priority == 7
        client = killed(cluster)
        rows = opened_again(client, [2, 3, 4])
        assert [rows[job].priority for job in rows] == [7, 300, 0, 0]

        assert is_refused("NOT_ALLOWED", client.control, 3, "remove")
        assert client.control(3, "cancel").wanted == 2
        client = killed(cluster)
        rows = client.jobs()
        assert (rows[3].wanted, rows[3].state) == (2, 0) and rows[3].ended_ms > 0
        assert client.control(3, "cancel").ended_ms == rows[3].ended_ms
        assert is_refused("NOT_ALLOWED", client.control, 3, "resume")
        assert is_refused("NOT_ALLOWED", submit, cluster, b"%016d" % 3)
        viewer = look_at(cluster, 3)
        assert viewer.progress().state == STATE.STATE_CANCELLED
        assert is_refused("NOT_ALLOWED", viewer.add, [(b"k", b"/p")])
        request = wire_pb2.JobControl(job=3, action=wire_pb2.JobControl.ACTION_REMOVE)
        assert is_refused("BUSY", client.listed, job_control=request)
        viewer.ask(job_close=wire_pb2.JobClose(job=3))

        opened_again(client, [2, 4])
        client.control(4, "cancel")
        for job in (3, 4):
            assert client.control(job, "remove") is None
            assert not (state / "jobs" / f"{job:08}.lmdb").exists()
            assert is_refused("UNKNOWN_JOB", client.control, job, "remove")
        client = killed(cluster)
        assert set(client.jobs()) == {1, 2}
        assert filled(cluster, 4, 4) == 5  # 3 and 4 are nobody's for good

        cluster.null_workers()
        assert client.control(1, "resume").wanted == 0
        def ended():
            rows = client.jobs()
            return rows if all(r.ended_ms and not r.state for r in rows.values()) else None
        rows = wait_for(ended)
        assert [(job, r.n_items, r.n_done, r.n_failed) for job, r in rows.items()] == [
            (1, 40, 40, 0), (2, 40, 40, 0), (5, 4, 4, 0)]
        for action in ("pause", "resume", "cancel"):
            assert is_refused("NOT_ALLOWED", client.control, 1, action)
        assert is_refused("UNKNOWN_JOB", client.control, 4, "pause")
        assert cluster.broker.stop() == 0


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_job_that_runs_stops(folder, action):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        assert filled(cluster, 1, 20000) == 1
        cluster.null_workers()
        client = connected(cluster)
        wait_for(lambda: client.jobs()[1].n_done, step=0.002)
        client.control(1, action)
        wait_for(lambda: client.jobs()[1].state == 0)
        row = client.jobs()[1]
        assert 0 < row.n_done < 20000 and row.wanted == {"pause": 1, "cancel": 2}[action]
        if action == "pause":
            client.control(1, "resume")
            wait_for(lambda: client.jobs()[1].ended_ms)
            assert client.jobs()[1].n_done == 20000
        assert cluster.broker.stop() == 0


def test_a_job_is_resumed_while_it_is_being_closed(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        client = connected(cluster)
        for n in range(1, 6):  # the first closing takes time, since the keys are built
            assert filled(cluster, n, 20000) == n
            client.control(n, "pause")
            client.control(n, "resume")
            wait_for(lambda: client.jobs()[n].state == STATE.STATE_RUNNING, 5, step=0.005)


def test_a_job_that_failed_is_resumed_while_a_client_has_it_open(folder):
    state, stores = folder / "state", folder / "state" / "jobs"
    with Cluster(folder, {**preloaded("faulty_disk"), "FAULTY_DISK": str(stores)}, state_dir=state) as cluster:
        assert filled(cluster, 1, 400) == 1
        viewer, client = look_at(cluster, 1), connected(cluster)
        (stores / "faulty").touch()
        cluster.null_workers()
        wait_for(lambda: client.jobs()[1].state == STATE.STATE_FAILED)
        assert b"Input/output error" in client.jobs()[1].text
        (stores / "faulty").unlink()
        client.control(1, "resume")
        wait_for(lambda: client.jobs()[1].ended_ms)
        assert client.jobs()[1].n_done == 400
        viewer.close()


def test_a_priority_changes_the_share_of_an_open_job(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        assert [filled(cluster, n, 20000) for n in (1, 2)] == [1, 2]
        client = connected(cluster)
        client.control(2, "priority", priority=10000)
        cluster.null_workers()
        rows = wait_for(lambda: (rows := client.jobs())[2].n_done >= 8000 and rows, step=0.002)
        assert rows[1].n_done < rows[2].n_done / 2


def test_rows_under_way_do_not_revive_a_cancelled_job(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        client, opened = submit(cluster, b"0123456789abcdef")
        client.seq += 1
        client.send([store_pb2.Item(key=b"%d" % i, path=b"/p") for i in range(40)],
                    job_rows=wire_pb2.JobRows(job=opened.job))
        assert client.control(opened.job, "cancel").wanted == 2  # before those rows are committed
        wait_for(lambda: client.jobs()[opened.job].n_items == 40)
        assert client.jobs()[opened.job].wanted == 2
        assert killed(cluster).jobs()[opened.job].wanted == 2


def test_a_broker_without_a_table_lists_no_jobs(folder):
    with Cluster(folder) as cluster:
        client = connected(cluster)
        assert is_refused("NOT_ALLOWED", client.jobs)
        assert is_refused("NOT_ALLOWED", client.control, 1, "pause")
        assert is_refused("BAD_MESSAGE", client.listed, job_control=wire_pb2.JobControl(job=1))
        assert is_refused("BAD_MESSAGE", client.listed, job_control=wire_pb2.JobControl(job=1, action=1, priority=5))


def test_actions_at_random_moments_between_kills(folder):
    seed = random.getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    state, items = folder / "state", 10000
    jobs, cancelled = [1, 2, 3, 4], 4
    wanted, priority = dict.fromkeys(jobs, 0), dict.fromkeys(jobs, 0)

    def disturb(client):
        job, action = rng.choice(jobs[:3]), rng.choice(["pause", "pause", "resume", "priority"])
        more = {"priority": rng.randrange(1, 1000)} if action == "priority" else {}
        try:
            row = client.control(job, action, **more)
        except Refused as refused:
            assert refused.reason == wire_pb2.Refuse.REASON_NOT_ALLOWED and client.jobs()[job].ended_ms, refused
            return
        priority[job] = more.get("priority", priority[job])
        wanted[job] = {"pause": 1, "resume": 0}.get(action, wanted[job])
        assert row.priority == priority[job] and (row.ended_ms or row.wanted == wanted[job])

    with Cluster(folder, state_dir=state) as cluster:
        for n in jobs:
            assert filled(cluster, n, items) == n
        client = connected(cluster)
        client.control(cancelled, "pause")
        cluster.null_workers()
        for kill in range(4):
            for _ in range(rng.randrange(3, 9)):
                disturb(client)
                time.sleep(rng.random() * 0.05)
            if kill == 1:
                client.control(cancelled, "resume")
                wait_for(lambda: client.jobs()[cancelled].n_done, step=0.002)
                client.control(cancelled, "cancel")
            client = killed(cluster)
            rows = client.jobs()
            for job in jobs[:3]:
                assert rows[job].priority == priority[job]
                assert rows[job].ended_ms or rows[job].wanted == wanted[job]
            assert rows[cancelled].wanted == (1 if kill == 0 else 2)
        for job in jobs[:3]:
            if not client.jobs()[job].ended_ms:
                client.control(job, "resume")
        wait_for(lambda: all(r.ended_ms and not r.state for r in client.jobs().values()))
        assert [client.jobs()[job].n_done for job in jobs[:3]] == [items] * 3
        assert filled(cluster, 5, items) == 5  # undisturbed
        wait_for(lambda: client.jobs()[5].ended_ms and not client.jobs()[5].state)
        n_cancelled = client.jobs()[cancelled].n_done
        assert cluster.broker.stop() == 0
    want = export(state / "jobs" / "00000005.lmdb")[1]
    for job in jobs[:3]:
        assert export(state / "jobs" / f"{job:08}.lmdb")[1] == want
    some = export(state / "jobs" / f"{cancelled:08}.lmdb")[1].splitlines()
    assert 0 < n_cancelled <= len(some) < items and set(some) <= set(want.splitlines())
