"""`blipline pause`, `resume`, `cancel`, `priority`, `rm`: the commands about jobs of a broker."""

import json

import pytest
from harness import Cluster, blipline, wait_for
from test_job_table import connected, filled
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
        assert "job 1 is paused; `" in said and " resume 2` continues it" in said
        assert [client.jobs()[n].wanted for n in (1, 2, 3)] == [1, 1, 0]
        assert "job 2 goes on\n" in ask(cluster, "resume", 2)
        assert client.jobs()[2].wanted == 0
        assert "job 3 has the priority 7\n" in ask(cluster, "priority", 2, 3, 7)
        assert [client.jobs()[n].priority for n in (1, 2, 3)] == [0, 7, 7]

        said = ask(cluster, "rm", 1, 99, 2, code=1)
        assert "rm: job 1 has not ended; cancel it first: `" in said and " cancel 1`\n" in said
        assert "rm: there is no job 99\n" in said
        assert ask(cluster, "rm", 99, code=2)
        assert "job 3 is cancelled; `" in ask(cluster, "cancel", 3)
        assert "rm 3` deletes" in ask(cluster, "cancel", 3)
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
            "job": 1, "name": "holidays", "owner": row["owner"], "recipe": "caption", "state": row["state"],
            "text": None, "priority": 300, "items": 40, "done": 0, "failed": 0, "sealed": True, "created_ms": 0,
            "ended_ms": None, "error": None}
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
    done = blipline("pause", 1, "--broker", f"ipc://{folder}/none", check=False, timeout=30)
    assert done.returncode == 1 and f"pause: no broker answers at ipc://{folder}/none\n" in done.stderr
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
        for command in (["pause", 1], ["rm", 1], ["cancel", 1], ["priority", 1, 5]):
            done = blipline(*command, check=False)
            assert done.returncode == 2 and "there is no job 1\n" in done.stderr
        as_("alice")
        assert "job 1 is paused" in blipline("pause", 1).stderr
        as_("root")
        assert "job 1 goes on" in blipline("resume", 1).stderr
        blipline("cancel", 1)
        assert "deleted" in blipline("rm", 1).stderr
