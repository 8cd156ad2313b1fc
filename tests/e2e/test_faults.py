"""Daemons that are killed, stopped, doubled; a job that is interrupted: the export is byte-equal to an undisturbed
one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import (
    IMAGES, MODEL, SLOW, Caption, Client, Cluster, Refused, answer_for, blipline, caption, demo_nodes, export,
    many, programs_with, store_rows, wait_for,
)
from proto import wire_pb2

COPIES = 4


@pytest.fixture(scope="module")
def job(made_once):
    """A source of 96 pictures and the export of an undisturbed run."""
    base = made_once("faults", lambda base: caption(many(base / "in", COPIES), base / "s"))
    return base / "in", export(base / "s")[1]


def disturbed(job, folder, *more):
    """The run that is disturbed. On two threads it is not over too soon on a big machine."""
    return Caption(job[0], folder / "s", "--threads", "2", *more)


def finish(run, job, folder):
    code, _, err = run.end(180)
    assert code == 0, err
    assert export(folder / "s")[1] == job[1]
    assert blipline("verify", folder / "s").returncode == 0
    return err


@pytest.mark.every_level
@pytest.mark.parametrize("role", ["broker", "encoder", "qformer", "llm"])
def test_kill_9_mid_job(folder, job, role):
    run = disturbed(job, folder, "--unit", "8", "--verbose")
    try:
        run.at_least(16).signal(role, signal.SIGKILL)
        finish(run, job, folder)
    finally:
        run.kill()


@pytest.mark.parametrize("role", ["broker", "encoder", "qformer", "llm"])
def test_stopped_and_continued_mid_job(folder, job, role):
    run = disturbed(job, folder, "--unit", "8")
    try:
        run.at_least(16)
        pid = run.roles()[role]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(pid, signal.SIGCONT)
        finish(run, job, folder)
    finally:
        run.kill()


@pytest.mark.parametrize("role", ["broker", "encoder"])
def test_a_stall_of_some_heartbeats_blames_nobody(folder, job, role):
    with Cluster(folder, lease=f"{10 * SLOW}s") as cluster:
        daemons = {"broker": cluster.broker, **{r: cluster.start(r, threads=1) for r in ("encoder", "qformer", "llm")}}
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=4)
        client.add(items_of(job[0]))
        client.seal()
        wait_for(lambda: client.progress().n_done >= 8)
        os.kill(daemons[role].process.pid, signal.SIGSTOP)
        time.sleep(7 * 0.2 * SLOW)
        os.kill(daemons[role].process.pid, signal.SIGCONT)
        progress = client.wait_done(120)
        client.close()
        log = cluster.broker.text()
    assert progress.n_failed == 0 and "attempt_failed" not in log
    assert [(s.failures, s.lease_expiries) for s in progress.stages] == [(0, 0)] * 3
    assert log.count("event=worker_hello") > 3, "nobody had to connect again: the stall was too short"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_resumed(folder, job, how):
    run = disturbed(job, folder, "--unit", "8")
    try:
        run.at_least(24)
        roles = run.roles()
        run.process.send_signal(how)
        code, _, err = run.end(60)
        if how != signal.SIGKILL:
            assert code == 128 + how, err
            assert "again" in err, "says how to go on"
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in roles.values()), 20)
        done = run.done()
        assert 24 <= done < 24 * COPIES
        assert caption(job[0], folder / "s").returncode == 0
        assert export(folder / "s")[1] == job[1]
    finally:
        run.kill()


def test_killed_again_and_again(folder, job):
    for n in range(3):
        run = disturbed(job, folder, "--unit", "4")
        try:
            run.at_least(16 * (n + 1))
        finally:
            run.kill()
    wait_for(lambda: caption(job[0], folder / "s", check=False).returncode == 0, 60)
    assert export(folder / "s")[1] == job[1]


def items_of(source):
    return [(p.name.encode(), os.fsencode(p)) for p in sorted(source.iterdir())]


def test_two_workers_of_a_stage_share_the_job(folder, job):
    with Cluster(folder) as cluster:
        for role in ("encoder", "encoder", "qformer", "llm", "llm"):
            cluster.start(role, f"{role}{len(cluster.daemons)}", threads=1)
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=4)
        client.add(items_of(job[0]))
        client.seal()
        client.wait_done(120)
        wait_for(lambda: [s.workers for s in client.progress().stages] == [2, 1, 2])
        client.close()
        for d in cluster.daemons[1:]:
            assert d.stop() == 0
        assert cluster.broker.stop() == 0
    rows, _ = export(folder / "s")
    assert len(rows) == 24 * COPIES and all(r["caption"] == answer_for(r["key"]) for r in rows)


def test_a_stopped_worker_loses_its_lease_and_its_late_result_is_dropped(folder, job):
    with Cluster(folder) as cluster:
        first = cluster.start("encoder", "encoder1", threads=1)
        for role in ("qformer", "llm"):
            cluster.start(role, threads=1)
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=4)
        client.add(items_of(job[0]))
        client.seal()
        wait_for(lambda: client.progress().n_done >= 8)
        os.kill(first.process.pid, signal.SIGSTOP)
        cluster.start("encoder", "encoder2", threads=1)
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and progress.n_done == 96
        os.kill(first.process.pid, signal.SIGCONT)
        client.close()
        for d in cluster.daemons:
            if d.role != "broker":
                d.stop()
        assert cluster.broker.stop() == 0
    rows, _ = export(folder / "s")
    assert all(r["caption"] == answer_for(r["key"]) for r in rows) and len(rows) == 96


def test_sigterm_hands_work_back_unpunished(folder, job):
    with Cluster(folder) as cluster:
        encoder = cluster.start("encoder", "encoder1", threads=1)
        for role in ("qformer", "llm"):
            cluster.start(role, threads=1)
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=4)
        client.add(items_of(job[0]))
        client.seal()
        wait_for(lambda: client.progress().n_done >= 8)
        assert encoder.stop() == 0
        assert client.progress().stages[0].failures == 0 and client.progress().stages[0].lease_expiries == 0
        cluster.start("encoder", "encoder2", threads=2)
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and "attempt_failed" not in cluster.broker.text()
        client.close()


def one_batch(folder, items, lease_ms):
    """The progress at the end of a job whose pictures are all in one batch, and the seconds that it took."""
    with Cluster(folder, lease=f"{lease_ms}ms") as cluster:
        cluster.start("encoder", threads=1, batch=160, window_items=160)
        for role in ("qformer", "llm"):
            cluster.start(role, threads=1)
        client = Client(cluster.endpoint)
        client.hello()
        wait_for(lambda: all("event=ready" in d.text() for d in cluster.daemons[1:]))
        client.open(folder / "s", demo_nodes(), unit_items=32)
        client.add(items)
        started = time.monotonic()
        client.seal()
        progress = client.wait_done(120)
        client.close()
    return progress, time.monotonic() - started


def test_a_batch_that_takes_longer_than_a_lease_is_no_hang(folder):
    """How long a batch takes is measured first: a lease is much shorter than that, and much longer than a layer."""
    items = items_of(many(folder / "in", 7))[:160]
    for name in ("a", "b"):
        (folder / name).mkdir()
    _, seconds = one_batch(folder / "a", items, 60000)
    progress, _ = one_batch(folder / "b", items, max(1000, int(seconds * 500)))
    assert progress.stages[0].lease_expiries == 0 and progress.n_failed == 0


def test_a_worker_with_another_model_waits_and_the_job_names_both(folder):
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        nodes = demo_nodes()
        for n in nodes:
            n.fingerprint, n.model = b"\x5a" * 16, b"blip2-something-else"
        client.open(folder / "s", nodes)
        client.add([(b"a", b"/nowhere/a")])
        client.seal()
        worker = cluster.start("qformer")
        wait_for(lambda: "event=worker_idle" in cluster.broker.text())
        assert 'model="blip2-opt-demo"' in cluster.broker.text(), cluster.broker.text()
        wait_for(lambda: b"blip2-something-else" in client.progress().text)
        assert worker.process.poll() is None, worker.text()
        client.close()


def test_a_picture_that_kills_its_worker_is_quarantined_alone(folder):
    """A stand-in for a decoder crash: an LLM written here that dies on one item."""
    items = [(b"%03d" % n, b"/nowhere/%03d" % n) for n in range(12)]
    from null_worker import PythonWorker
    with Cluster(folder, max_attempts=2) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        cluster.start("qformer", device="null", null_shape="1,8")
        client = Client(cluster.endpoint)
        client.hello()
        from harness import null_nodes
        client.open(folder / "s", null_nodes(), unit_items=6)
        client.add(items)
        client.seal()
        worker = PythonWorker(cluster.endpoint, wire_pb2.STAGE_LLM, poison={7})
        worker.start()
        try:
            progress = client.wait_done(90)
        finally:
            worker.stop()
        assert progress.n_failed == 1 and progress.n_done == 12
        client.close()
    rows, _ = export(folder / "s")
    assert rows[7]["error"]["code"] == "quarantined" and "poison" in rows[7]["error"]["message"]
    assert all(r["caption"] == "python" for i, r in enumerate(rows) if i != 7)


def test_isolation_costs_few_deaths_and_survives_the_broker(folder):
    """A worker that dies of one item of 64, the process itself, and a broker that is killed meanwhile."""
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", [wire_pb2.Node(stage=wire_pb2.STAGE_LLM)], unit_items=64)
        client.add([(b"%03d" % n, b"/nowhere/%03d" % n) for n in range(256)])
        client.seal()
        client.close()
        deaths, isolations = 0, 0
        while True:
            worker = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("null_worker.py")), cluster.endpoint, "--dies-of", "77"]
            )
            client = Client(cluster.endpoint)
            client.hello()
            client.open(folder / "s", [wire_pb2.Node(stage=wire_pb2.STAGE_LLM)])
            client.seal()

            def ended():
                progress = client.progress()
                return (
                    progress if progress.state == wire_pb2.JobProgress.STATE_DONE or worker.poll() is not None else None
                )
            progress = wait_for(ended)
            if progress.state == wire_pb2.JobProgress.STATE_DONE:
                break
            deaths += 1
            if deaths == 3:
                wait_for(lambda: client.progress().stages[0].isolations >= 2)
                client.seal()  # answered when what was written before is on the disk, the death too
                client.close()
                cluster.broker.stop(signal.SIGKILL)
                cluster.broker = cluster.start("broker", "broker2", **cluster.broker_conf)
                continue
            isolations = wait_for(lambda: client.progress().stages[0].isolations >= deaths - (1 if deaths < 3 else 3))
            client.close()
        client.close()
        worker.kill()
        worker.wait()
    assert deaths == 6 and isolations, deaths  # in company, alone, a piece of 8, and the item three times
    rows = store_rows(folder / "s")
    assert len(rows) == 256 and [n for n, r in rows.items() if r.error.code] == [77]
    assert rows[77].error.code == b"quarantined" and b"worker was lost" in rows[77].error.message


def test_a_job_in_a_broker_without_work_is_refused_politely(folder):
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        with pytest.raises(Refused, match="not open"):
            client.job = 4711
            client.progress()
        with pytest.raises(Refused):
            client.open("/proc/nothing/s", demo_nodes())
        with pytest.raises(Refused):
            client.open(folder / "s", [])
        client.close()


def test_a_disk_too_full_for_a_new_store_is_said_at_once(folder):
    mount = folder / "disk"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(mount)], check=False).returncode != 0
    ):
        pytest.skip("cannot mount a tmpfs")
    try:
        done = caption(IMAGES, mount / "s", check=False)
        assert done.returncode == 1 and "disk full: 40.0 MiB free" in done.stderr and "signal" not in done.stderr
        assert "make room there" in done.stderr and not (mount / "s").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(mount)], check=True)
        caption(IMAGES, mount / "s")
        assert len(export(mount / "s")[0]) == 24
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def test_full_disk_blocks_the_job_and_room_lets_it_go_on(folder, job):
    mount = folder / "disk"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(mount)], check=False).returncode != 0
    ):
        pytest.skip("cannot mount a tmpfs")
    try:
        with Cluster(folder, min_free="8MiB") as cluster:
            for role in ("encoder", "qformer", "llm"):
                cluster.start(role, threads=1)
            client = Client(cluster.endpoint)
            client.hello()
            client.open(mount / "s", demo_nodes(), unit_items=4)
            client.add(items_of(job[0]))
            client.seal()
            wait_for(lambda: client.progress().n_done >= 8)
            ballast = mount / "ballast"
            with open(ballast, "wb") as f:
                f.write(b"x" * (15 << 20))
            progress = wait_for(lambda: (p := client.progress()).state == wire_pb2.JobProgress.STATE_BLOCKED and p, 60)
            assert b"free" in progress.text or b"full" in progress.text
            before = client.progress().n_done
            time.sleep(1)
            assert client.progress().n_done == before
            ballast.unlink()
            progress = client.wait_done(120)
            assert progress.n_failed == 0
            client.close()
            cluster.broker.stop()
        rows, _ = export(mount / "s")
        assert len(rows) == 96 and all(r["caption"] == answer_for(r["key"]) for r in rows)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def test_a_worker_that_never_gets_ready_ends_the_run(folder):
    """However long a start takes: here the language model, content when it is asked with -n, says that its memory does
    not suffice."""
    program = programs_with(
        folder,
        "llm",
        "case \" $* \" in *' -n '*) exit 0 ;; esac\necho 'blipline-llm: no memory for the cache' >&2\nexit 70\n",
    )
    done = subprocess.run(
        [program, "caption", "--device", "cpu", str(IMAGES), "-o", str(folder / "s"), "--model", str(MODEL)],
        capture_output=True, text=True, timeout=60 * SLOW,
    )
    assert done.returncode == 1 and "the llm does not start" in done.stderr, done.stderr
    assert done.stderr.count("starting another one") == 2 and done.stderr.count("no memory for the cache") == 3


def test_deaths_of_isolation_do_not_count(folder):
    """An llm that dies of one item of a unit of 64, six times in all; five deaths of a worker in 30 s are given up
    upon."""
    program = programs_with(
        folder,
        "llm",
        f"case \" $* \" in *' -n '*) exit 0 ;; esac\nexec '{sys.executable}'"
        f" '{Path(__file__).with_name('null_worker.py')}' \"$(sed -n 's/^endpoint = //p' \"$2\")\" --dies-of 77\n",
    )
    done = subprocess.run(
        [program, "caption", str(many(folder / "in", 8)), "-o", str(folder / "s"), "--device", "null", "--unit", "64"],
        capture_output=True, text=True, timeout=120 * SLOW, check=False,
    )
    assert done.returncode == 3, done.stderr
    assert (
        done.stderr.count("the llm was killed by signal 9") + done.stderr.count("starting another one") >= 6
    ), done.stderr
    rows = store_rows(folder / "s")
    assert len(rows) == 192 and [n for n, r in rows.items() if r.error.code] == [77]
