"""A worker on whose host the pictures of a job are not there: other workers do its units, or the job waits."""

import subprocess

import pytest
from harness import MODEL, Client, Cluster, blipline, caption, export, many, wait_for
from proto import wire_pb2


def with_empty(folder):
    """A command line: a mount namespace of its own, in which the folder is empty."""
    return ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none '{folder}' && exec \"$@\"", "sh"]


def can_unshare(folder):
    return subprocess.run([*with_empty(folder), "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def pictures(folder, monkeypatch):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    source = many(folder / "data" / "photos", 1)
    if not can_unshare(source):
        pytest.skip("mount namespaces are not allowed here")
    return source


@pytest.fixture
def cluster(folder):
    with Cluster(folder, state_dir=folder / "state") as c:
        c.start("qformer")
        c.start("llm")
        yield c


def watcher(cluster, job):
    client = Client(cluster.endpoint)
    client.hello()
    client.job = client.ask(job_open=wire_pb2.JobOpen(job=job)).job_opened.job
    return client


def submit(cluster, source, *more):
    return blipline("submit", source, "--broker", cluster.endpoint, "--model", MODEL, "--unit", "4", *more)


def equals_caption(folder, source):
    caption(source, folder / "s")
    rows, data = export(folder / "state" / "jobs" / "00000001.lmdb")
    assert data == export(folder / "s")[1] and not any("error" in row for row in rows)


def test_others_do_what_a_worker_cannot_see(folder, pictures, cluster):
    blind = cluster.start("encoder", "blind", within=with_empty(pictures))
    wait_for(lambda: "stage=encode" in cluster.broker.text())
    assert submit(cluster, pictures).stdout == "1\n"
    wait_for(lambda: "event=unseen" in cluster.broker.text())
    cluster.start("encoder", "sees")
    wait_for(lambda: "event=job_done job=1" in cluster.broker.text())
    what = f"cannot see {pictures} (the folder is empty)"
    assert blind.text().count(what) == 1 and cluster.broker.text().count("event=unseen job=1") == 1
    assert what in cluster.broker.text() and "event=unit_failed" not in cluster.broker.text()
    equals_caption(folder, pictures)


def test_a_job_that_nobody_can_see_waits_and_goes_on(folder, pictures, cluster):
    blind = cluster.start("encoder", "blind", within=with_empty(pictures.parent))
    assert submit(cluster, pictures).stdout == "1\n"
    client = watcher(cluster, 1)
    progress = wait_for(lambda: (p := client.progress()).text and p)
    what = f"cannot see {pictures} (No such file or directory)"
    assert what.encode() in progress.text and progress.n_done == 0, progress
    assert progress.state == wire_pb2.JobProgress.STATE_RUNNING
    for stage in progress.stages:
        assert stage.failures == 0 and stage.benched == 0
    subprocess.run(["nsenter", "-t", str(blind.process.pid), "-m", "umount", pictures.parent], check=True)
    assert client.wait_done().n_failed == 0
    wait_for(lambda: client.progress().text == b"")  # looked at once a second
    equals_caption(folder, pictures)
