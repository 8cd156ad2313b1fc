"""`submit --push`: pictures that no worker can see travel through the broker."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from harness import (
    BUILD, MODEL, PICTURES, SLOW, Client, Cluster, Refused, blipline, caption, export, many, null_nodes, wait_for,
)
from proto import store_pb2, wire_pb2

STORE = "state/jobs/00000001.lmdb"


@pytest.fixture
def home(folder, monkeypatch):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    return folder / "home"


@pytest.fixture
def cluster(folder, home):
    with Cluster(folder, state_dir=folder / "state") as c:
        wait_for(lambda: "event=ready" in c.broker.text())
        yield c


def workers(cluster):
    for role in ("encoder", "qformer", "llm"):
        cluster.start(role)


def command(cluster, source, *more):
    return [str(BUILD / "blipline"), "submit", str(source), "--broker", cluster.endpoint, "--model", str(MODEL),
            "--push", *map(str, more)]


def push(cluster, source, *more, check=True):
    return blipline(*command(cluster, source, *more)[1:], check=check)


def begin(cluster, source, *more):
    return subprocess.Popen(command(cluster, source, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def restart(cluster):
    cluster.broker.process.kill()
    cluster.broker.process.wait()
    cluster.broker = cluster.start("broker", **cluster.broker_conf)


def pushed(folder):
    return sorted(p.name for p in (folder / STORE).iterdir() if p.name.startswith("pushed-"))


def n_pushed(client):
    """As the protocol says: JobPush without rows asks."""
    return client.ask(job_push=wire_pb2.JobPush(job=1)).job_pushed.n_items


def watcher(cluster):
    client = Client(cluster.endpoint)
    client.hello()

    def opened():
        try:
            return client.ask(job_open=wire_pb2.JobOpen(job=1)).job_opened.job
        except Refused as refused:
            if refused.reason != wire_pb2.Refuse.REASON_BUSY:
                raise
    client.job = wait_for(opened)  # a broker that has just started may be opening it
    return client


def pad(source, name, n_bytes):
    """A picture with so many bytes behind its end, which decoders ignore."""
    data = next(p for p in PICTURES if p.suffix == ".jpg").read_bytes()
    (source / name).write_bytes(data + bytes(n_bytes - len(data)))


def test_the_result_equals_that_of_caption_and_the_files_may_go(folder, cluster):
    source = many(folder / "in", 1)
    (source / "a_empty.jpg").write_bytes(b"")
    (source / "b_broken.jpg").write_bytes(PICTURES[0].read_bytes()[:50])
    pad(source, "c_large.jpg", 20 << 20)
    (source / "d_no_file.jpg").symlink_to("/dev/null")
    pad(source, "z_exact.jpg", 8 << 20)
    caption(source, folder / "s", check=False)
    done = push(cluster, source, "--unit", "4")
    assert done.stdout == "1\n"
    assert len(pushed(folder)) > 1
    shutil.rmtree(source)
    workers(cluster)
    client = watcher(cluster)
    progress = client.wait_done()
    assert progress.n_failed == sum("error" in row for row in export(folder / "s")[0]) > 0
    assert export(folder / STORE)[1] == export(folder / "s")[1]
    assert pushed(folder) == []


def test_workers_begin_while_the_rest_is_sent_and_kill_9_costs_little(folder, cluster):
    source = many(folder / "in", 1)
    for i in range(30):
        pad(source, f"y_{i:02}.jpg", 4 << 20)
    caption(source, folder / "s")
    workers(cluster)
    process = begin(cluster, source)
    wait_for(lambda: (folder / STORE).exists() and len(pushed(folder)) > 0, step=0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    client = watcher(cluster)
    had = n_pushed(client)
    assert client.progress().state != wire_pb2.JobProgress.STATE_DONE
    client.close()
    restart(cluster)
    client = watcher(cluster)
    assert n_pushed(client) == had
    process = begin(cluster, source)
    wait_for(lambda: n_pushed(client) > had, step=0.01)
    client.close()
    restart(cluster)
    out, err = process.communicate(timeout=120 * SLOW)
    assert (process.returncode, out) == (0, "1\n"), err
    shutil.rmtree(source)
    client = watcher(cluster)
    assert client.wait_done().n_failed == 0
    assert export(folder / STORE)[1] == export(folder / "s")[1]
    assert pushed(folder) == []


def rss_anon(pid):
    return int(re.search(r"RssAnon:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) >> 10


def test_memory_is_bounded(folder, cluster):
    source = folder / "in"
    source.mkdir()
    for i in range(200):
        pad(source, f"{i:03}.jpg", 3 << 20)
    process = begin(cluster, source)
    most = {"client": 0, "broker": 0}
    while process.poll() is None:
        for name, pid in (("client", process.pid), ("broker", cluster.broker.process.pid)):
            try:
                most[name] = max(most[name], rss_anon(pid))
            except (OSError, AttributeError):
                pass  # it has just ended
    out, err = process.communicate()
    print(f"600 MiB of pictures: RssAnon {most} MiB")
    assert (process.returncode, out) == (0, "1\n"), err
    assert most["client"] < 150 * SLOW and most["broker"] < 200 * SLOW, most


def small_disk(at, size):
    at.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)],
                                           check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs")


def test_a_full_disk_is_said_and_the_rest_comes_when_there_is_room(folder, home):
    source = many(folder / "in", 1)
    for i in range(30):
        pad(source, f"y_{i:02}.jpg", 4 << 20)
    caption(source, folder / "s")
    small_disk(folder / "state", "96m")
    try:
        with Cluster(folder, state_dir=folder / "state", min_free="16MiB") as cluster:
            wait_for(lambda: "event=ready" in cluster.broker.text())
            with open(folder / "said", "w+") as said:
                process = subprocess.Popen(command(cluster, source), stdout=subprocess.PIPE, stderr=said, text=True)
                wait_for(lambda: "no room for more pictures" in (folder / "said").read_text(), 30)
            text = (folder / "said").read_text()
            assert re.search(r"it says: there is no room for more pictures: disk full: \d+\.\d MiB free on "
                             r".*state/jobs/.*, and 16MiB must stay free; make room there, and it goes on by itself",
                             text)
            client = watcher(cluster)
            had = n_pushed(client)
            client.close()
            restart(cluster)  # which costs nothing of what was there
            client = watcher(cluster)
            assert n_pushed(client) == had > 0 and process.poll() is None
            workers(cluster)  # pictures of units that are done make room for others
            out, _ = process.communicate(timeout=120 * SLOW)
            assert (process.returncode, out) == (0, "1\n"), (folder / "said").read_text()
            assert client.wait_done().n_failed == 0
            assert export(folder / STORE)[1] == export(folder / "s")[1]
            assert pushed(folder) == []
    finally:
        subprocess.run(["umount", "-l", str(folder / "state")], check=False)


def test_a_client_that_goes_away_is_missed_and_rm_removes_what_it_sent(folder, cluster):
    source = folder / "in"
    source.mkdir()
    for i in range(40):
        pad(source, f"{i:03}.jpg", 3 << 20)
    process = begin(cluster, source)
    wait_for(lambda: (folder / STORE).exists() and len(pushed(folder)) > 1, step=0.01)
    process.terminate()
    process.communicate()
    workers(cluster)
    watch = Client(cluster.endpoint)
    watch.hello()
    row = wait_for(lambda: b"has gone" in (row := watch.jobs()[1]).text and row.n_done and row)
    client = watcher(cluster)
    assert f"pictures of {n_pushed(client)} of 40 items, and the client" in row.text.decode()
    client.close()
    assert 0 < row.n_done < 40 and pushed(folder) != []  # of the unit that is not whole
    watch.control(1, "cancel")
    assert watch.control(1, "remove") is None
    assert not (folder / STORE).exists()


def test_only_pictures_that_are_wanted_are_taken(folder, cluster):
    hash_of = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    hash_of.restype, hash_of.argtypes = ctypes.c_uint64, (ctypes.c_char_p, ctypes.c_size_t)

    def submit(n, push):
        client = Client(cluster.endpoint)
        client.hello()
        sent = wire_pb2.Submission(token=bytes([n]) * 16, push=push)
        recipe = wire_pb2.Recipe(name=b"caption", decode=wire_pb2.Decode(
            max_new_tokens=8, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1, temperature=1, top_p=1))
        client.job = client.ask(job_open=wire_pb2.JobOpen(
            submission=sent, recipe=recipe, nodes=null_nodes(), unit_items=4)).job_opened.job
        client.add([(b"a", b"/no/a.jpg"), (b"b", b"/no/b.jpg")])
        client.seal()
        return client

    def send(client, items, data, xxh3=None):
        tensor = wire_pb2.Tensor(dtype=wire_pb2.DTYPE_U8, shape=[len(data)], transport=wire_pb2.TRANSPORT_INLINE,
                                 xxh3=hash_of(data, len(data)) if xxh3 is None else xxh3, inline_data=data)
        rows = [store_pb2.Item(item=i, key=b"-", pushed_bytes=n) for i, n in items]
        client.seq += 1
        client.send(rows, declared=[tensor], job_push=wire_pb2.JobPush(job=client.job))
        while True:
            envelope, frames = client.receive()
            if envelope.seq == client.seq:
                return envelope.job_pushed.n_items

    def refused(client, *args, **more):
        with pytest.raises(Refused) as why:
            send(client, *args, **more)
        return str(why.value)

    assert "read the pictures themselves" in refused(submit(1, False), [(0, 1)], b"x")
    assert "checksum" in refused(submit(2, True), [(0, 1)], b"x", xxh3=5)
    assert "is wanted" in refused(submit(2, True), [(0, 1), (0, 1)], b"xx")
    client = submit(2, True)
    assert send(client, [(0, 3)], b"abc") == 1
    assert send(client, [(1, 2)], b"de") == 2
    with pytest.raises(Refused, match="are deleted once they are done"):
        client.ask([store_pb2.Item(item=0, key=b"-")], job_again=wire_pb2.JobAgain(job=client.job))
    with pytest.raises(Refused, match="are deleted once they are done"):
        client.control(2, "retry")


def test_results_that_the_disk_has_no_room_for_are_refused_before_the_job_is_accepted(folder, home):
    source = many(folder / "in", 100)
    small_disk(folder / "state", "48m")
    embed = ("--recipe", "embed", "--embed", "query")
    try:
        with Cluster(folder, state_dir=folder / "state", min_free="16MiB") as cluster:
            wait_for(lambda: "event=ready" in cluster.broker.text())
            args = [a for a in command(cluster, source, *embed)[1:] if a != "--push"]
            done = blipline(*args, check=False)
            assert (done.returncode, done.stdout) == (1, "")
            said = re.search(r"the results of 2400 items will take about (\d+)\.\d MiB more in .*00000001.lmdb, "
                             r"and the disk has room for (\d+)\.\d MiB \(16MiB must stay free\): make room there and "
                             r"run the same command again, or submit fewer items", done.stderr)
            assert 35 < int(said[1]) < 48 and 20 < int(said[2]) < 32
            subprocess.run(["mount", "-o", "remount,size=200m", str(folder / "state")], check=True)
            done = blipline(*args)
            assert done.stdout == "1\n" and "continuing a submission" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(folder / "state")], check=False)


def test_a_dry_run_says_what_a_job_would_take(folder, cluster):
    source = many(folder / "in", 2)
    dry = ["submit", str(source), "--broker", cluster.endpoint, "--model", str(MODEL), "--dry-run"]
    done = blipline(*dry)
    assert "max-new-tokens = " in done.stdout and done.stdout.count("no worker that could do it takes work") == 3
    assert "time: unknown" in done.stderr
    assert re.search(r"disk: the results take about \d+\.\d KiB, and the broker's disk has room for \d+\.\d [MGT]iB",
                     done.stderr)
    assert re.search(r"48 pictures, \d+\.\d [KM]iB\. Nothing was submitted", done.stderr)
    assert not list((folder / "state" / "jobs").iterdir())
    workers(cluster)
    blipline(*dry[:-1], "--wait")
    done = blipline(*dry, "--push")
    assert re.search(r"time: about \w+, if no other job needs these workers .*; the slowest stage is \w+", done.stderr)
    assert re.search(r"--push: the pictures take \d+\.\d [KM]iB there until they are done\n", done.stderr)
    told = json.loads(blipline(*dry, "--json").stdout)
    assert told["schema"] == "dry-run" and told["pictures"] == 48 and told["workers"] == []
    assert told["bytes"] == sum(p.stat().st_size for p in source.iterdir())
    assert [s["stage"] for s in told["fleet"]] == ["encode", "qformer", "llm"]
    rate = min(s["items_per_s"] for s in told["fleet"])
    assert 0 < rate < 100000 and abs(told["seconds"] - 48 / rate) < 1e-3 * told["seconds"]
    assert 48 * 100 < told["result_bytes"] < 48 * 1000


def test_a_dry_run_ends_with_an_error_where_the_disk_is_too_small(folder, home):
    source = many(folder / "in", 100)
    small_disk(folder / "state", "48m")
    try:
        with Cluster(folder, state_dir=folder / "state", min_free="16MiB") as cluster:
            wait_for(lambda: "event=ready" in cluster.broker.text())
            done = blipline("submit", source, "--broker", cluster.endpoint, "--model", MODEL, "--dry-run", "--recipe",
                            "embed", "--embed", "query", check=False)
            assert done.returncode == 1
            assert re.search(r"the results take about \d+\.\d MiB, and the broker's disk has room for \d+\.\d MiB: "
                             "make room there, or submit fewer pictures", done.stderr)
    finally:
        subprocess.run(["umount", "-l", str(folder / "state")], check=False)


def test_no_other_file_is_sent_whatever_the_broker_asks_for(folder, cluster):
    source = folder / "in"
    source.mkdir()
    for i in range(40):
        pad(source, f"{i:03}.jpg", 3 << 20)
    process = begin(cluster, source)
    wait_for(lambda: (folder / STORE).exists() and len(pushed(folder)) > 0, step=0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    secret = folder / "home" / "secret"
    secret.write_text("the key of the house")
    restart(cluster)  # it lets a client add to the job by its number
    client = watcher(cluster)
    client.add([(b"x", str(source / ".." / "home" / "secret").encode())])  # for the command: what the broker says
    client.seal()
    client.close()
    done = push(cluster, source, check=False)
    assert done.returncode == 1
    assert f"the broker asks for {source}/../home/secret, which is no picture of this job's sources" in done.stderr
    assert not any(b"the key of the house" in (folder / STORE / name).read_bytes() for name in pushed(folder))
