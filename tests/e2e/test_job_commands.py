"""`blipline jobs`, `status`, `watch`, `pause`, `resume`, `cancel`, `retry`, `priority`, `rm`: the jobs of a broker."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time

import pytest
from harness import BUILD, Cluster, blipline, wait_for
from test_job_retry import ended as row_ended
from test_job_retry import with_worker
from test_job_table import connected, filled, killed, submit
from test_keys import KeyCluster, Keys


@pytest.fixture(autouse=True)
def home(folder, monkeypatch):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.delenv("BLIPLINE_BROKER", raising=False)


def ask(cluster, command, *args, code=0):
    """What the command says to people."""
    done = blipline(command, *args, "--broker", cluster.endpoint, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return done.stderr


def ask_json(cluster, command, *args, code=0):
    done = blipline(command, *args, "--json", "--broker", cluster.endpoint, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_jobs_are_changed_by_number(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        for n in (1, 2, 3):
            assert filled(cluster, n, 40) == n
        client = connected(cluster)
        said = ask(cluster, "pause", 1, 2)
        assert "job 1 is paused; `" in said and f" resume 2 --broker {cluster.endpoint}` continues it" in said
        assert [client.jobs()[n].wanted for n in (1, 2, 3)] == [1, 1, 0]
        assert "job 2 goes on\n" in ask(cluster, "resume", 2)
        assert client.jobs()[2].wanted == 0
        assert "job 3 has the priority 7\n" in ask(cluster, "priority", 2, 3, 7)
        assert [client.jobs()[n].priority for n in (1, 2, 3)] == [0, 7, 7]

        said = ask(cluster, "rm", 1, 99, 2, code=1)
        assert "rm: job 1 has not ended; cancel it first: `" in said
        assert f" cancel 1 --broker {cluster.endpoint}`\n" in said
        assert "rm: there is no job 99\n" in said
        assert ask(cluster, "rm", 99, code=2)
        assert "job 3 is cancelled; `" in ask(cluster, "cancel", 3)
        assert " rm 3 --broker " in ask(cluster, "cancel", 3)
        assert "job 3 was cancelled" in ask(cluster, "resume", 3, code=1)
        assert "job 3 and its results are deleted\n" in ask(cluster, "rm", 3)
        assert set(client.jobs()) == {1, 2}
        cluster.null_workers()
        ask(cluster, "resume", 1)
        wait_for(lambda: all(row.ended_ms and not row.state for row in client.jobs().values()))
        assert "job 1 has ended" in ask(cluster, "pause", 1, code=1)
        ask(cluster, "rm", 1, 2)
        assert client.jobs() == {}


def test_answers_as_json(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        assert filled(cluster, 1, 40) == 1
        answer = ask_json(cluster, "priority", 1, 2, 300, code=2)
        assert answer["schema"] == "control" and answer["action"] == "priority"
        row, missing = answer["jobs"]
        assert row["created_ms"] > 0 and missing == {"job": 2, "error": "there is no job 2"}
        assert {**row, "created_ms": 0, "text": None} == {
            "job": 1, "name": "holidays", "owner": row["owner"], "recipe": "caption", "model": None,
            "state": row["state"], "text": None, "priority": 300, "items": 40, "done": 0, "failed": 0, "to_do_again": 0,
            "sealed": True, "created_ms": 0, "ended_ms": None, "error": None}
        assert ask_json(cluster, "cancel", 1)["jobs"][0]["state"] == "cancelled"
        assert ask_json(cluster, "rm", 1)["jobs"] == [{"job": 1, "error": None}]


@pytest.mark.parametrize("number", ["7x", "0", "-1", "", "99999999999999999999", "9223372036854775808", "1.0", "all"])
def test_what_is_no_number_of_a_job(number):
    for args in (["pause", number], ["rm", "1", number], ["priority", number, "5"], ["priority", "1", number]):
        done = blipline(args[0], "--json", "--", *args[1:], check=False)
        assert done.returncode == 2, done.stderr
        assert json.loads(done.stdout)["error"]["exit_code"] == 2
        assert "number" in done.stderr


def test_no_broker(folder):
    for command in ("pause", "watch", "status"):
        done = blipline(command, 1, "--broker", f"ipc://{folder}/none", check=False, timeout=10)
        assert done.returncode == 1 and f"{command}: no broker answers at ipc://{folder}/none\n" in done.stderr
    done = blipline("pause", 1, "--json", check=False, timeout=5)
    assert done.returncode == 2 and "no broker is named" in json.loads(done.stdout)["error"]["message"]


def test_a_client_changes_its_own_jobs_and_an_admin_all(folder):
    keys = Keys(folder / "keys")
    for name, role in (("alice", "clients"), ("bob", "clients"), ("root", "admins")):
        keys.make(name, role)
    (folder / "home" / ".config" / "blipline").mkdir(parents=True)
    conf = folder / "home" / ".config" / "blipline" / "client.conf"

    def as_(name):
        conf.write_text(f"broker = {cluster.tcp}\n" + "".join(f"{k} = {v}\n" for k, v in keys.of(name).items()))

    with KeyCluster(folder, keys, state_dir=folder / "state") as cluster:
        (folder / "list.txt").write_text("/pictures/1.jpg\n")
        as_("alice")
        assert blipline("submit", f"@{folder}/list.txt", "--device", "null").stdout == "1\n"
        as_("bob")
        assert json.loads(blipline("jobs", "--json").stdout)["jobs"] == []
        for command in (["status", 1], ["watch", 1], ["retry", 1], ["pause", 1], ["rm", 1], ["cancel", 1],
                        ["priority", 1, 5]):
            done = blipline(*command, check=False)
            assert done.returncode == 2 and "there is no job 1\n" in done.stderr
        as_("alice")
        assert "job 1 is paused" in blipline("pause", 1).stderr
        as_("root")
        assert [row["owner"] for row in json.loads(blipline("jobs", "--json").stdout)["jobs"]] == ["alice"]
        assert "job 1 goes on" in blipline("resume", 1).stderr
        blipline("cancel", 1)
        assert "deleted" in blipline("rm", 1).stderr


# -- jobs


def table(cluster, *args):
    """The lines of the list without its titles, as lists of words."""
    return [line.split() for line in blipline("jobs", *args, "--broker", cluster.endpoint).stdout.splitlines()[1:]]


def test_the_list_has_what_has_not_ended_and_what_has_ended_last(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        assert table(cluster) == []
        for n in range(1, 15):
            assert filled(cluster, n, 4) == n
        client = connected(cluster)
        ask(cluster, "cancel", *range(2, 14))
        lines = wait_for(lambda: (t := table(cluster))[0][3] == t[-1][3] == "waiting" and t)
        assert [line[0] for line in lines] == ["1", *(str(n) for n in range(4, 14)), "14"]
        assert [line[3] for line in lines] == ["waiting", *["cancelled"] * 10, "waiting"]
        assert lines[0][1] == "holidays" and lines[0][4:7] == ["100", "0/4", "0"] and lines[0][7].endswith("s")
        done = blipline("jobs", "--broker", cluster.endpoint)
        assert "2 more jobs have ended; --all " in done.stderr
        assert [line[0] for line in table(cluster, "--all")] == [str(n) for n in range(1, 15)]
        assert [line[0] for line in table(cluster, "--state", "waiting")] == ["1", "14"]
        ask(cluster, "pause", 14)
        half, opened = submit(cluster, b"0123456789abcdef")
        half.add([(b"k", b"/p")])
        wait_for(lambda: table(cluster, "--state", "importing"))
        half.close()
        wait_for(lambda: [line[0] for line in table(cluster, "--state", "incomplete")] == [str(opened.job)])
        assert "its `submit` command again" in ask(cluster, "resume", opened.job)
        assert table(cluster, "--state", "paused")[0][8:] == ["paused", "on", "request"]
        jobs = ask_json(cluster, "jobs", "--all")["jobs"]
        assert [row["job"] for row in jobs] == list(range(1, 16))
        assert [row["sealed"] for row in jobs] == [True] * 14 + [False]
        cluster.null_workers()
        wait_for(lambda: client.jobs()[1].ended_ms)
        assert table(cluster, "--state", "done")[0][5] == "4/4"
        assert blipline("jobs", "--state", "none", "--broker", cluster.endpoint, check=False).returncode == 2


def on_a_terminal(args, columns):
    """What the command prints there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(BUILD / "blipline"), *map(str, args)], stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    text = b""
    while True:
        try:
            text += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.wait(30) == 0
    return text.decode().replace("\r\n", "\n")


def test_the_list_fits_a_terminal(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        for n in (1, 2):
            assert filled(cluster, n, 4) == n
        ask(cluster, "pause", 2)
        for columns in (70, 80, 200):
            lines = on_a_terminal(["jobs", "--broker", cluster.endpoint], columns).splitlines()
            assert len(lines) == 3 and max(map(len, lines)) <= columns
        jobs = ["jobs", "--broker", cluster.endpoint]
        wait_for(lambda: on_a_terminal(jobs, 400) == blipline(*jobs).stdout)  # of the same second: both show ages


# -- status


def test_status_says_what_to_do_next(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        def status(job):
            return blipline("status", job, "--broker", cluster.endpoint).stdout
        assert filled(cluster, 1, 40) == 1
        said = status(1)
        for line in ("job 1\n", "  name       holidays\n", "  items      0 of 40 done, 0 failed\n", " ago)\n",
                     "  encode     0 items done, 0 units being worked on, ", "; 0 workers\n", "  watch it   ",
                     "  store      jobs/00000001.lmdb in "):
            assert line in said, line
        wait_for(lambda: "  state      waiting: " in status(1))
        ask(cluster, "pause", 1)
        wait_for(lambda: "  state      paused: paused on request\n" in status(1))
        assert "  continue   " in status(1) and " resume 1 --broker " in status(1)
        answer = ask_json(cluster, "status", 1)
        assert (answer["state"], answer["open"], answer["stages"]) == ("paused", False, None)
        ask(cluster, "resume", 1)
        wait_for(lambda: ask_json(cluster, "status", 1)["open"])
        assert [s["stage"] for s in ask_json(cluster, "status", 1)["stages"]] == ["encode", "qformer", "llm"]
        cluster.null_workers()
        wait_for(lambda: "  ended      " in status(1))
        assert "delete it" in status(1) and " rm 1 --broker " in status(1)
        done = blipline("status", 2, "--broker", cluster.endpoint, check=False)
        assert done.returncode == 2 and "status: there is no job 2\n" in done.stderr


# -- watch


def watching(cluster, job, *args):
    return subprocess.Popen(
        [str(BUILD / "blipline"), "watch", str(job), "--broker", cluster.endpoint, *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def ended(process, code):
    out, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    return out, said


def test_watch_goes_on_when_the_broker_is_restarted(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        assert filled(cluster, 1, 2000) == 1
        watcher = watching(cluster, 1, "--json")
        time.sleep(0.5)
        assert watcher.poll() is None
        killed(cluster).close()
        cluster.null_workers()
        out, said = ended(watcher, 0)
        assert "trying again" in said and "job 1: 2000 of 2000 items done" in said
        answer = json.loads(out)
        assert (answer["schema"], answer["job"], answer["complete"], answer["done"]) == ("watch", 1, True, 2000)
        out, said = ended(watching(cluster, 1), 0)  # it has ended before
        assert out == "" and said.startswith("blipline: job 1: 2000 of 2000 items done\n")


def test_watch_ends_with_the_job(folder):
    with Cluster(folder, state_dir=folder / "state") as cluster:
        for n in (1, 2, 3):
            assert filled(cluster, n, 40) == n
        watchers = {job: watching(cluster, job) for job in (1, 2, 3)}
        time.sleep(0.5)
        ask(cluster, "pause", 1)
        said = ended(watchers[1], 1)[1]
        assert "job 1 is paused: paused on request; `" in said and " resume 1 --broker " in said
        assert "job 1 is paused" in ended(watching(cluster, 1), 1)[1]
        ask(cluster, "cancel", 2)
        assert "job 2 was cancelled, with 0 of 40 items done" in ended(watchers[2], 1)[1]
        watchers[3].send_signal(signal.SIGINT)
        assert "job 3 goes on at the broker" in ended(watchers[3], 130)[1]
        assert "watch: there is no job 4\n" in ended(watching(cluster, 4), 2)[1]


# -- retry


def test_failed_items_are_done_again(folder):
    with Cluster(folder, state_dir=folder / "state", max_given_up=0) as cluster:
        cluster.start("encoder", device="null", null_shape="1,8")
        cluster.start("qformer", device="null", null_shape="1,8")
        with_worker(cluster)
        assert filled(cluster, 1, 40) == 1 and filled(cluster, 2, 4) == 2
        client = connected(cluster)
        assert (row_ended(client, 1).n_failed, row_ended(client, 2).n_failed) == (20, 2)
        said = blipline("status", 1, "--broker", cluster.endpoint).stdout
        assert "  try again  " in said and f" retry 1 --broker {cluster.endpoint}\n" in said
        said = ended(watching(cluster, 1), 3)[1]
        assert "20 items failed\n" in said and f" stats 1 --broker {cluster.endpoint}` counts the reasons; `" in said
        assert f" retry 1 --broker {cluster.endpoint}` does these items again\n" in said
        assert said.endswith(f" export 1 --broker {cluster.endpoint}\n")
        assert "job 1 has no items that failed for such a reason\n" in ask(cluster, "retry", 1, "--reason", "corrupt")
        row_ended(client, 1)
        cluster.worker.mended = True
        said = ask(cluster, "retry", 1, "--reason", "truncated,corrupt", "-r", "no_text")
        assert "job 1 does 10 items again\n" in said
        assert row_ended(client, 1).n_failed == 10
        answer = ask_json(cluster, "retry", 1, 2, 3, code=2)
        assert answer["action"] == "retry" and answer["jobs"][2] == {"job": 3, "error": "there is no job 3"}
        assert [row["to_do_again"] for row in answer["jobs"][:2]] == [10, 2]
        assert (row_ended(client, 1).n_failed, row_ended(client, 2).n_failed) == (0, 0)
        assert "job 1 has no items that failed\n" in ask(cluster, "retry", 1)
        assert "try again" not in blipline("status", 1, "--broker", cluster.endpoint).stdout
        cluster.worker.stop()


@pytest.mark.parametrize("reason", ["", "a,,b", "Truncated", "x" * 64, ",".join("c%d" % i for i in range(33))])
def test_what_is_no_reason_of_failure(reason):
    done = blipline("retry", 7, "--reason", reason, "--broker", "ipc:///none", check=False, timeout=5)
    assert done.returncode == 2 and "retry: --reason" in done.stderr
