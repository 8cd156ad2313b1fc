"""export, get, stats and verify of a job that a broker keeps, and export --follow."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from harness import BUILD, IMAGES, PICTURES, ROOT, SLOW, Caption, Cluster, blipline, children, many, wait_for
from test_keys import KeyCluster, Keys
from test_submit import NULL, long_list, restart, submit

SCORER = ROOT / "models" / "blip2-itm-demo"
RECIPE = """about = scores and embeddings

[score]
score = itc,itm
text-field = text

[embed]
embed = query:fp32
embed = itc:fp32
embed = itc_text:fp16
"""


@pytest.fixture
def home(folder, monkeypatch):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.delenv("BLIPLINE_BROKER", raising=False)
    return folder / "home"


def store_of(folder, job=1):
    return folder / "state" / "jobs" / f"{job:08}.lmdb"


def run(cluster, command, job, *more, check=True):
    return blipline(command, job, *more, "--broker", cluster.endpoint, check=check)


def without_broker(text, store, job=1):
    """What a command says of a job, as it would say it of the store."""
    return re.sub(r" --broker \S+", "", text).replace(f"job {job}:", f"{store}:").replace(
        f" {job})", f" {store})").replace(f" {job} counts", f" {store} counts")


def assert_same(cluster, store, command, *more, job=1):
    there = run(cluster, command, job, *more, check=False)
    here = blipline(command, store, *more, check=False)
    assert there.stdout.replace(f"job {job}:", f"{store}:") == here.stdout
    assert there.returncode == here.returncode, (there, here)
    assert without_broker(there.stderr, store, job) == here.stderr
    return here


def exported(store):
    return blipline("export", store).stdout


def follow(*args):
    return subprocess.Popen([str(BUILD / "blipline"), "export", *map(str, args), "--follow"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def rss_kib(pid):
    status = open(f"/proc/{pid}/status").read()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def peak(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def test_every_format_is_that_of_the_store(folder, home):
    source = folder / "list.jsonl"
    rows = [{"path": str(p), "key": p.name, "text": [f"a {p.stem}", "a cat"], "url": f"http://x/{p.name}"}
            for p in PICTURES]
    rows.insert(3, {"path": str(folder / "missing.jpg"), "key": "missing.jpg", "text": "none", "url": None})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "everything.conf").write_text(RECIPE)
    with Cluster(folder, state_dir=folder / "state") as cluster:
        for role in ("encoder", "qformer"):
            cluster.start(role, model=SCORER)
        done = submit(cluster.endpoint, f"@{source}", "--model", SCORER, "--recipe", folder / "everything.conf",
                      "--fields", "url", "--wait", check=False)
        assert done.returncode == 3, done
        store = store_of(folder)
        for more in ((), ("--format", "csv"), ("--format", "txt"), ("--flat",), ("--fields", "path,size,mtime,url"),
                     ("--format", "csv", "--fields", "source,url"), ("--best-of", "itm"),
                     ("--min-itc", "0.1", "--dedup-text"), ("--fields", "nothing"), ("--best-of", "logprob")):
            assert_same(cluster, store, "export", *more)
        for kind in ("query", "itc", "itc_text"):
            for where, name in (((store,), "here"), ((1, "--broker", cluster.endpoint), "there")):
                blipline("export", *where, "--embedding", kind, "-o", folder / f"{name}.npy", "--fields", "url")
            for ending in (".npy", ".keys.jsonl"):
                assert (folder / f"here{ending}").read_bytes() == (folder / f"there{ending}").read_bytes()
        assert assert_same(cluster, store, "export", "--embedding", "cls", "-o", folder / "no.npy").returncode == 1
        for command in ("stats", "verify"):
            for more in ((), ("--json",)):
                assert_same(cluster, store, command, *more)
        for what in ((PICTURES[2].name,), ("missing.jpg",), ("nobody",), ("--item", 5), ("--item", 99)):
            for more in ((), ("--json",)):
                assert_same(cluster, store, "get", *what, *more)
        # digits alone are a job of the usual broker, unless they are a path
        assert blipline("export", 1, env={**os.environ, "BLIPLINE_BROKER": cluster.endpoint}).stdout == exported(store)
        (folder / "1").symlink_to(store)
        assert blipline("export", 1, cwd=folder).stdout == exported(store)


def test_what_is_not_there(folder, home):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        done = run(cluster, "export", 7, check=False)
        assert done.returncode == 2 and "there is no job 7" in done.stderr, done
        done = run(cluster, "stats", "photos.lmdb", check=False)
        assert done.returncode == 2 and "not the number of a job" in done.stderr, done
        done = blipline("verify", "--json", 7, check=False)
        assert done.returncode == 2 and json.loads(done.stdout)["error"]["exit_code"] == 2, done
        assert "broker" in done.stderr
    assert children(os.getpid()) == {}


def test_only_the_owner_and_admins_read_a_job(folder, home):
    keys = Keys(folder / "keys")
    keys.make("alice", "clients")
    keys.make("bob", "clients")
    keys.make("root", "admins")
    conf = home / ".config" / "blipline" / "client.conf"
    conf.parent.mkdir(parents=True)

    def as_(name):
        conf.write_text("".join(f"{k} = {v}\n" for k, v in {"broker": cluster.tcp, **keys.of(name)}.items()))

    with KeyCluster(folder, keys, state_dir=folder / "state") as cluster:
        as_("alice")
        assert blipline("submit", IMAGES, *NULL).stdout == "1\n"
        cluster.null_workers()
        out = follow(1)
        assert len(out.communicate(timeout=60 * SLOW)[0].splitlines()) == 24 and out.returncode == 0
        for name, allowed in (("alice", True), ("bob", False), ("root", True)):
            as_(name)
            for command in (("export", 1), ("get", 1, "--item", 3), ("stats", 1), ("verify", 1)):
                done = blipline(*command, check=False)
                assert done.returncode == (0 if allowed else 2), done
                assert allowed or (done.stdout == "" and "there is no job 1" in done.stderr)


def test_a_job_is_read_while_it_runs_and_after_it_was_stopped(folder, home):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        submit(cluster.endpoint, IMAGES, *NULL, "--unit", 4)
        done = run(cluster, "export", 1)
        assert done.stdout == "" and "24 items are not done yet" in done.stderr
        for action, state in (("pause", "paused"), ("cancel", "cancelled")):
            blipline(action, 1, "--broker", cluster.endpoint)
            out = follow(1, "--broker", cluster.endpoint)
            out, err = out.communicate(timeout=60 * SLOW)
            assert out == "" and "24 items are not done yet" in err, (state, err)
        assert_same(cluster, store_of(folder), "stats")
        submit(cluster.endpoint, IMAGES, *NULL, "--unit", 4, "--name", "second")
        running = follow(2, "--broker", cluster.endpoint, "-o", folder / "rows.jsonl")
        wait_for(lambda: (folder / "rows.jsonl").exists())
        time.sleep(0.7)
        assert running.poll() is None and (folder / "rows.jsonl").read_text() == ""
        cluster.null_workers()
        assert running.wait(60 * SLOW) == 0
        assert_same(cluster, store_of(folder, 2), "export", job=2)
        rows = (folder / "rows.jsonl").read_text().splitlines()
        assert sorted(rows) == sorted(exported(store_of(folder, 2)).splitlines())
        # read-only processes end by themselves
        wait_for(lambda: children(cluster.broker.process.pid) == {}, 20)


def test_follow_reads_a_store_that_caption_writes(folder):
    pictures = many(folder / "pictures", 8)
    job = Caption(pictures, folder / "s", "--unit", "8")
    job.at_least(8)
    out = follow(folder / "s", "-o", folder / "rows.jsonl")
    wait_for(lambda: (folder / "rows.jsonl").exists() and (folder / "rows.jsonl").read_text() != "")
    assert job.process.poll() is None, "the rows came after the end"
    assert job.end()[0] == 0
    assert out.wait(60 * SLOW) == 0, out.communicate()
    rows = (folder / "rows.jsonl").read_text().splitlines()
    assert sorted(rows) == sorted(exported(folder / "s").splitlines()) and len(rows) == 8 * 24
    done = blipline("export", folder / "s", "--follow", "--format", "csv")
    assert len(done.stdout.splitlines()) == len(rows) + 1


def begun_export(cluster):
    """An export through the broker, and its first bytes. Without a buffer, since communicate() does not return what a
    buffer has read ahead."""
    process = subprocess.Popen([str(BUILD / "blipline"), "export", "1", "--broker", cluster.endpoint],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    first = b""
    while len(first) < 1 << 20:
        more = process.stdout.read((1 << 20) - len(first))
        assert more, process.stderr.read()
        first += more
    return process, first


def test_a_large_job_takes_little_memory_and_outlasts_the_broker(folder, home):
    n = 200000
    with Cluster(folder, state_dir=folder / "state") as cluster:
        submit(cluster.endpoint, long_list(folder, n), *NULL, "--unit", 64)
        rows = folder / "rows.jsonl"
        follower = follow(1, "--broker", cluster.endpoint, "-o", rows)
        cluster.null_workers()
        wait_for(lambda: rows.exists() and rows.stat().st_size > 20 * n, 120 * SLOW)
        restart(cluster)
        assert rows.stat().st_size < 80 * n
        assert follower.wait(120 * SLOW) == 0 and "trying again" in follower.stderr.read()
        here = exported(store_of(folder))
        assert here.count("\n") == n
        assert sorted(rows.read_text().splitlines()) == sorted(here.splitlines())  # each row once
        assert_same(cluster, store_of(folder), "stats", "--json")
        broker = cluster.broker.process.pid
        before = rss_kib(broker)
        with open(folder / "out", "wb") as f:
            begun = time.monotonic()
            reader = subprocess.Popen([str(BUILD / "blipline"), "export", "1", "--broker", cluster.endpoint],
                                      stdout=f, stderr=subprocess.PIPE)
            most = 0
            while reader.poll() is None:
                try:
                    most = max(most, peak(reader.pid))
                except (OSError, TypeError):
                    pass
                time.sleep(0.01)
        print(f"{n / (time.monotonic() - begun):.0f} rows/s")
        assert reader.returncode == 0 and (folder / "out").read_text() == here
        if SLOW == 1:  # not with a sanitizer's memory
            assert most < 60000, f"the client took {most} KiB"
            assert rss_kib(broker) < before + 30000
        # one that dies half-way leaves nothing behind
        half = subprocess.Popen([str(BUILD / "blipline"), "export", "1", "--broker", cluster.endpoint],
                                stdout=subprocess.PIPE)
        half.stdout.read(1 << 20)
        half.kill()
        half.communicate()
        # the broker dies half-way: the same bytes
        cut, first = begun_export(cluster)
        assert first and cut.poll() is None
        restart(cluster)
        rest, err = cut.communicate(timeout=60 * SLOW)
        assert first + rest == here.encode() and cut.returncode == 0, err
        assert b"trying again" in err
        # the job is removed half-way: an error, never an export that looks complete
        cut, first = begun_export(cluster)
        blipline("rm", 1, "--broker", cluster.endpoint)
        rest, err = cut.communicate(timeout=60 * SLOW)
        assert cut.returncode == 1 and b"there is no job 1" in err
        assert here.encode().startswith(first + rest) and len(first + rest) < len(here)


def test_a_verify_ends_with_its_client(folder, home):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        submit(cluster.endpoint, IMAGES, *NULL)
        assert "sound; 24 items" in run(cluster, "verify", 1).stdout
        [pid] = children(cluster.broker.process.pid)
        os.kill(pid, signal.SIGSTOP)  # as if all pages took for ever
        check = subprocess.Popen([str(BUILD / "blipline"), "verify", "1", "--broker", cluster.endpoint])
        time.sleep(0.5)
        assert check.poll() is None
        others = [run(cluster, "get", 1, "--item", 1).stdout for _ in range(3)]
        assert all("not done yet" in text for text in others)
        assert pid in children(cluster.broker.process.pid)
        check.send_signal(signal.SIGINT)
        assert check.wait(10 * SLOW) in (-signal.SIGINT, 130)
        wait_for(lambda: pid not in children(cluster.broker.process.pid), 10)


def test_a_damaged_store_ends_its_reader_alone(folder, home):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        cluster.null_workers()
        for job in (1, 2):
            submit(cluster.endpoint, IMAGES, *NULL, "--name", job, "--wait")
        wait_for(lambda: "event=job_closed job=1" in cluster.broker.text())
        data = store_of(folder) / "data.mdb"
        run(cluster, "stats", 1)
        whole = data.read_bytes()
        name = PICTURES[7].name.encode()
        data.write_bytes(whole.replace(name, b"X" + name[1:]))
        there = run(cluster, "verify", 1, "--json", check=False)
        here = blipline("verify", store_of(folder), "--json", check=False)
        assert there.returncode == here.returncode == 1 and json.loads(there.stdout)["n_problems"] > 0
        assert there.stdout == here.stdout
        there = run(cluster, "export", 1, check=False)
        here = blipline("export", store_of(folder), check=False)
        assert there.returncode == here.returncode and there.stdout == here.stdout
        os.truncate(data, 3 * 4096)
        done = run(cluster, "export", 1, check=False)
        assert done.returncode == 1 and "data.mdb" in done.stderr, done
        assert run(cluster, "export", 2).stdout == exported(store_of(folder, 2))
        assert cluster.broker.process.poll() is None
