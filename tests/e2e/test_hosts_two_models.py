"""Jobs of two models from a client host, done by two worker hosts: exports equal those of `caption` on one machine."""

import json
import os
import signal
import subprocess
import time

import pytest
from harness import BUILD, MODEL, PATIENCE, PICTURES, ROOT, SLOW, caption, export, wait_for
from hosts import why_not
from PIL import Image
from test_hosts import PORT, HostCluster, end, hosts  # noqa: F401  (hosts is a fixture)

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")
MODELS = {1: MODEL, 2: ROOT / "tests" / "golden" / "t5_a"}  # by job
SHORT = ("--unit", "2", "--max-new-tokens", "8")


def crops(folder, n):
    """Pictures of which no two are alike."""
    folder.mkdir()
    wholes = [Image.open(p).convert("RGB").resize((128, 128)) for p in PICTURES]
    for i in range(n):
        k, which = divmod(i, len(wholes))
        wholes[which].crop((k, k, 128 - 2 * k, 128 - k)).save(folder / f"{i:03}.png")
    return folder


class TwoModels(HostCluster):
    """Workers of both models on both hosts; a job of each model."""

    def __init__(self, folder, hosts, source, **broker):  # noqa: F811
        super().__init__(folder, hosts, state_dir=folder / "state", **broker)
        self.source = source
        for host in ("one", "two"):
            for role in ("encoder", "qformer", "llm"):
                for job, model in MODELS.items():
                    self.start(role, f"{role}-{job}-{host}", host=host, device="cpu", model=model, threads=1)
        wait_for(lambda: self.broker.text().count("event=worker_hello") == 12, 60)
        self.waiting = []
        for job, model in MODELS.items():  # that of the slow model first
            self.waiting.append(self.submit(source, "--model", model, *SHORT, "--wait"))
            assert self.waiting[-1].stdout.readline() == f"{job}\n", self.waiting[-1].communicate()
            self.all_have(5)

    def blipline(self, *args):
        """The output of a command on the host "client"; "": the broker does not answer."""
        return subprocess.run([*self.hosts.within("client"), BUILD / "blipline", *args],
                              capture_output=True, text=True, env={**os.environ, "HOME": str(self.folder)},
                              timeout=60 * PATIENCE * SLOW).stdout

    def all_have(self, n):
        """Waits until n pictures of each job are done. None is done with all."""
        def done():
            if not (shown := self.blipline("top", "--json")):
                return False
            jobs = json.loads(shown)["jobs"]
            assert len(jobs) == len(self.waiting), "too late: a job is done"
            return all(job["done"] >= n for job in jobs)
        wait_for(done, 60)

    def lose_for_good(self, host):
        """Nobody hears of it: its link is down before its processes are killed."""
        subprocess.run([*self.hosts.within(host), "ip", "link", "set", "eth0", "down"], check=True)
        pids = subprocess.run(["ip", "netns", "pids", self.hosts.space(host)], check=True, capture_output=True)
        for pid in pids.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def finish(self):
        """Both commands end well, and the results are those of one machine."""
        for command in self.waiting:
            end(command)
        assert self.broker.stop() == 0
        for job, model in MODELS.items():
            caption(self.source, self.folder / f"{job}.lmdb", "--model", model, *SHORT)
            assert export(self.folder / "state" / "jobs" / f"{job:08}.lmdb") == export(self.folder / f"{job}.lmdb")


def test_the_broker_and_a_worker_host_are_killed(folder, hosts):  # noqa: F811
    with TwoModels(folder, hosts, crops(folder / "pictures", 200)) as cluster:
        cluster.lose_for_good("two")
        cluster.all_have(15)
        cluster.restart()
        cluster.finish()


def test_packets_are_lost_and_hosts_are_cut_off_and_come_back(folder, hosts):  # noqa: F811
    with TwoModels(folder, hosts, crops(folder / "pictures", 80)) as cluster:
        hosts.drop("two", f"tcp dport {PORT}")  # it hears, and is not heard
        hosts.lose("one", 5)
        time.sleep(4 * SLOW)  # longer than a lease
        hosts.drop("broker")
        time.sleep(4 * SLOW)
        assert cluster.waiting[0].poll() is None  # the slow model's job is in the middle
        hosts.join("broker")
        hosts.join("two")
        cluster.finish()
