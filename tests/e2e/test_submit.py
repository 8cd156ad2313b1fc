"""`blipline submit`: jobs for a broker that runs as a service."""

import fcntl
import json
import os
import shutil
import signal
import subprocess

import pytest
from harness import (
    BUILD, IMAGES, MODEL, PICTURES, SLOW, Client, Cluster, blipline, caption, export, wait_for,
)
from proto import wire_pb2
from test_keys import KeyCluster, Keys

NULL = ("--device", "null")


@pytest.fixture
def home(folder, monkeypatch):
    """Submissions that are not accepted yet are noted here."""
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.delenv("BLIPLINE_BROKER", raising=False)
    return folder / "home"


def submit(endpoint, source, *more, **kwargs):
    return blipline("submit", source, "--broker", endpoint, *more, **kwargs)


def begin(endpoint, source, *more):
    """A submission as a process of its own, to be disturbed."""
    return subprocess.Popen(
        [str(BUILD / "blipline"), "submit", str(source), "--broker", endpoint, *map(str, more)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def restart(cluster):
    cluster.broker.process.kill()
    cluster.broker.process.wait()
    cluster.broker = cluster.start("broker", **cluster.broker_conf)


def long_list(folder, n):
    path = folder / "list.txt"
    path.write_text("".join(f"/pictures/{i:07}.jpg\n" for i in range(n)))
    return f"@{path}"


def n_items(cluster, job):
    client = Client(cluster.endpoint)
    client.hello()
    try:
        return client.ask(job_open=wire_pb2.JobOpen(job=job)).job_opened.n_items
    finally:
        client.close()


def stores(state):
    return sorted(path.name for path in (state / "jobs").iterdir())


def noted(home):
    return list((home / ".local" / "state" / "blipline" / "submissions").iterdir())


def test_the_result_equals_that_of_caption(folder, home):
    state, bad = folder / "state", folder / "bad"
    bad.mkdir()
    shutil.copy(PICTURES[0], bad)
    (bad / "broken.jpg").write_bytes(PICTURES[0].read_bytes()[:50])
    with Cluster(folder, state_dir=state) as cluster:
        for role in ("encoder", "qformer", "llm"):
            cluster.start(role)
        done = submit(cluster.endpoint, IMAGES, "--model", MODEL, "--wait")
        assert done.stdout == "1\n"
        assert "job 1: 24 of 24 items done" in done.stderr and "export 1 --broker" in done.stderr
        caption(IMAGES, folder / "s")
        assert export(state / "jobs" / "00000001.lmdb")[1] == export(folder / "s")[1]
        done = submit(cluster.endpoint, bad, "--model", MODEL, "--wait", "--json", check=False)
        assert done.returncode == 3 and "1 item failed" in done.stderr
        assert '"schema": "submit"' in done.stdout and '"job": 2' in done.stdout and '"failed": 1' in done.stdout
    assert noted(home) == []


def is_locked(path):
    with open(path) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True


def test_the_same_submission_several_times_at_once_is_one_job(folder, home):
    state = folder / "state"
    with Cluster(folder, state_dir=state) as cluster:
        wait_for(lambda: "event=ready" in cluster.broker.text())
        cluster.broker.process.send_signal(signal.SIGSTOP)
        first = begin(cluster.endpoint, IMAGES, *NULL)
        wait_for(lambda: (home / ".local/state/blipline/submissions").exists() and noted(home)
                 and is_locked(noted(home)[0]), step=0.01)
        first.send_signal(signal.SIGSTOP)  # or it would give up while a busy machine starts the others
        others = [begin(cluster.endpoint, IMAGES, *NULL, *more) for more in ((), (), ("--json",), ("--wait",))]
        for other in others:
            assert "under way in another process" in other.stderr.readline()
        impatient = begin(cluster.endpoint, IMAGES, *NULL)
        assert "under way in another process" in impatient.stderr.readline()
        impatient.send_signal(signal.SIGINT)
        assert impatient.wait(60 * SLOW) == 130 and len(noted(home)) == 1
        impatient.communicate()
        for process in (cluster.broker.process, first):
            process.send_signal(signal.SIGCONT)
        cluster.null_workers()
        for process in (first, *others):
            out, err = process.communicate(timeout=60 * SLOW)
            assert process.returncode == 0 and (out == "1\n" or json.loads(out)["job"] == 1), (out, err)
        assert "job 1: " in err and "24 items" in err, err
        assert stores(state) == ["00000001.lmdb"] and noted(home) == []
        assert submit(cluster.endpoint, IMAGES, *NULL).stdout == "2\n"  # that one was accepted: this is another
        assert n_items(cluster, 1) == n_items(cluster, 2) == 24


def test_a_submission_that_was_killed_goes_on(folder, home):
    state, source = folder / "state", long_list(folder, 200000)
    with Cluster(folder, state_dir=state) as cluster:
        cut = begin(cluster.endpoint, source, *NULL)
        wait_for(lambda: "event=job_opened job=1" in cluster.broker.text(), step=0.001)
        cluster.broker.process.send_signal(signal.SIGSTOP)
        cut.kill()
        assert cut.communicate()[0] == "" and len(noted(home)) == 1
        cluster.broker.process.send_signal(signal.SIGCONT)
        wait_for(lambda: "event=import_abandoned job=1" in cluster.broker.text())
        assert submit(cluster.endpoint, source, *NULL, "--name", "another").stdout == "2\n"
        done = submit(cluster.endpoint, source, *NULL)
        assert done.stdout == "1\n" and noted(home) == []
        assert n_items(cluster, 1) == 200000
        assert stores(state) == ["00000001.lmdb", "00000002.lmdb"]


def test_a_broker_that_comes_back_gets_the_rest(folder, home):
    state, source = folder / "state", long_list(folder, 200000)
    with Cluster(folder, state_dir=state) as cluster:
        process = begin(cluster.endpoint, source, *NULL)
        wait_for(lambda: "event=job_opened job=1" in cluster.broker.text(), step=0.001)
        restart(cluster)
        out, err = process.communicate(timeout=120 * SLOW)
        assert (process.returncode, out) == (0, "1\n") and "trying again" in err, err
        assert n_items(cluster, 1) == 200000 and stores(state) == ["00000001.lmdb"]


def test_who_waits_may_leave_and_outlasts_the_broker(folder, home):
    state, source = folder / "state", long_list(folder, 4000)
    with Cluster(folder, state_dir=state) as cluster:
        process = begin(cluster.endpoint, source, *NULL, "--wait")
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60 * SLOW)[1]
        assert process.returncode == 130 and "job 1 goes on at the broker" in err, err
        process = begin(cluster.endpoint, source, *NULL, "--wait")
        assert process.stdout.readline() == "2\n"
        restart(cluster)
        cluster.null_workers()
        err = process.communicate(timeout=120 * SLOW)[1]
        assert process.returncode == 0 and "job 2: 4000 of 4000 items done" in err, err
        assert "trying again" in err
        wait_for(lambda: "event=job_done job=1" in cluster.broker.text())  # which nobody waited for


def test_errors_name_the_broker_and_the_cure(folder, home):
    with Cluster(folder) as cluster:
        none = f"ipc://{folder}/none"
        for code, endpoint, what in (
            (1, none, f"no broker answers at {none}"),
            (2, "nonsense", "not an endpoint"),
            (2, "tcp://127.0.0.1:1", "blipline keygen"),
            (1, cluster.endpoint, "state_dir"),
        ):
            done = submit(endpoint, IMAGES, *NULL, check=False)
            assert done.returncode == code and what in done.stderr and done.stdout == "", done
        done = blipline("submit", IMAGES, *NULL, check=False)
        if not os.path.exists("/etc/blipline/client.conf"):
            assert done.returncode == 2 and "~/.config/blipline/client.conf" in done.stderr, done
        n_noted = len(noted(home))
        done = submit(cluster.endpoint, folder / "nowhere", *NULL, check=False)
        assert done.returncode == 2 and "nowhere" in done.stderr, done
        done = submit(cluster.endpoint, folder, *NULL, check=False)
        assert done.returncode == 1 and "no pictures in" in done.stderr, done
        assert len(noted(home)) == n_noted  # nothing was sent, so there is nothing to go on with
        done = submit(cluster.endpoint, IMAGES, check=False)
        assert done.returncode == 2 and "--model" in done.stderr, done


def test_with_keys_over_tcp(folder, home):
    keys = Keys(folder / "keys")
    keys.make("alice", "clients")
    keys.make("mallory")
    with KeyCluster(folder, keys, state_dir=folder / "state") as cluster:
        conf = home / ".config" / "blipline" / "client.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text("".join(f"{k} = {v}\n" for k, v in {"broker": cluster.tcp, **keys.of("alice")}.items()))
        assert blipline("submit", IMAGES, *NULL).stdout == "1\n"
        conf.write_text("".join(f"{k} = {v}\n" for k, v in keys.of("mallory").items()))
        done = submit(cluster.tcp, IMAGES, *NULL, check=False)
        assert done.returncode == 1 and "does not accept this key" in done.stderr, done
