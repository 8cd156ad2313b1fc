#!/usr/bin/python3
"""Jobs of 1e4 to 1e7 items through `blipline submit` to a broker that keeps its jobs, with null workers: an item
must cost the same however many there are.

    O=build PYTHONPATH=build/gen-python tests/bench/scale.py [N ...]     (default: 1e4 1e5 1e6 1e7)

For each N: `submit` returns with the job's number when the job is durable; kill -9 of the broker; a new one opens the
store again; three null workers connect, and the job goes on to its end. Jobs up to 1e6 are done in turn, several times:
the medians are printed. CPU times are the broker's alone; they depend less than seconds on what else the machine does.
"""

import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import Client, Cluster, blipline, wait_for  # noqa: E402
from proto import wire_pb2  # noqa: E402

ROUNDS, LARGE = 3, 2000000  # larger jobs are done once
FEW = 200000  # smaller jobs are repeated until they have so many items


class Watch(threading.Thread):
    """The broker's largest RssAnon, in bytes."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.most, self.ends = f"/proc/{pid}/status", 0, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.02):
            try:
                with open(self.status) as f:
                    self.most = max(self.most, int(re.search(r"RssAnon:\s+(\d+)", f.read())[1]) << 10)
            except (OSError, TypeError):
                return

    def stop(self):
        self.ends.set()
        self.join()
        return self.most


def cpu_s(daemon):
    with open(f"/proc/{daemon.process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def said(cluster, what):
    return wait_for(lambda: what in cluster.broker.text(), 300, 0.002)


def until(client, n):
    """Wait until that many items are done; the time."""
    while client.progress().n_done < n:
        time.sleep(0.002)
    return time.monotonic()


def attach(cluster, job):
    client = Client(cluster.endpoint)
    client.hello()
    client.job = client.ask(job_open=wire_pb2.JobOpen(job=job)).job_opened.job
    return client


def measure(n, listing, folder):
    """One job."""
    folder.mkdir()
    with Cluster(folder, state_dir=folder / "state", lease="30s", log_level="info") as cluster:
        said(cluster, "event=ready")
        watch, cpu, begin = Watch(cluster.broker.process.pid), cpu_s(cluster.broker), time.monotonic()
        done = blipline("submit", f"@{listing}", "--broker", cluster.endpoint, "--device", "null", timeout=3600)
        ret = {"accepted_s": time.monotonic() - begin, "import_rss": watch.stop()}
        cpu = cpu_s(cluster.broker) - cpu
        cluster.broker.process.kill()
        cluster.broker.process.wait()

        begin = time.monotonic()
        cluster.broker = cluster.start("broker", "again", **cluster.broker_conf)
        said(cluster, "event=job_opened")
        ret["reopen_s"] = time.monotonic() - begin
        watch, client = Watch(cluster.broker.process.pid), attach(cluster, int(done.stdout))
        cluster.null_workers()
        wait_for(lambda: cluster.broker.text().count("event=worker_hello") == 3, step=0.002)
        begin = time.monotonic()
        ret["items_per_s"] = n / (until(client, n) - begin)
        ret["run_rss"] = watch.stop()
        ret["cpu_us"] = 1e6 * (cpu + cpu_s(cluster.broker)) / n
        client.close()
    shutil.rmtree(folder)
    return ret


def rounds_of(n, work):
    """The figures of small jobs are means of several."""
    listing, times = work / f"list{n}.txt", max(1, FEW // n)
    if not listing.exists():
        with open(listing, "w") as f:
            f.writelines(f"/pictures/{i:09d}.jpg\n" for i in range(n))
    jobs = [measure(n, listing, work / "job") for _ in range(times)]
    return {what: statistics.mean(job[what] for job in jobs) for what in jobs[0]}


def main():
    sizes = [int(float(n)) for n in sys.argv[1:] or ("1e4", "1e5", "1e6", "1e7")]
    work = pathlib.Path(tempfile.mkdtemp(prefix="bl-scale-", dir="/tmp"))
    os.environ["HOME"] = str(work)  # submissions are noted there
    try:
        all_rounds = {n: [] for n in sizes}
        for i in range(ROUNDS):
            for n in sizes:
                if i == 0 or n < LARGE:
                    all_rounds[n].append(rounds_of(n, work))
        for n, rounds in all_rounds.items():
            m = {what: statistics.median(r[what] for r in rounds) for what in rounds[0]}
            print(f"{n:9} items: ACCEPTED after {m['accepted_s']:6.2f} s with RssAnon {m['import_rss'] / 1e6:3.0f} MB;"
                  f" {m['items_per_s']:6.0f} items/s with {m['run_rss'] / 1e6:3.0f} MB; opened again in"
                  f" {m['reopen_s']:5.2f} s; the broker's CPU: {m['cpu_us']:4.1f} us an item")
            print(f"CSV,scale,{n}," + ",".join(f"{value:.6g}" for value in m.values()))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
