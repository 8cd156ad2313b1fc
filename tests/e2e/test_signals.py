"""Signals never interrupt what computes: kernels keep their stack pointer where a handler's frame would do damage."""

import os
import pathlib
import signal

import pytest

from harness import PICTURES, Client, Cluster, answer_for, demo_nodes, export, many, preloaded, wait_for

BLOCKED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGCHLD, signal.SIGPROF,
)
LEVEL = os.environ.get("BLIPLINE_TEST_CPU_ISA", "auto")


def masks(pid, which="SigBlk"):
    """(name, the signals that it blocks, or those in the field `which`) of each thread."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        found.append((status["Name"], int(status[which], 16)))
    return found


def test_one_thread_of_a_daemon_takes_its_signals(folder):
    with Cluster(folder) as cluster:
        encoder = cluster.start("encoder", threads=2, decode_threads=2)
        for role in ("qformer", "llm"):
            cluster.start(role, threads=2)
        wait_for(lambda: all("event=ready" in d.text() for d in cluster.daemons[1:]))
        for d in cluster.daemons:
            threads = masks(d.process.pid)
            assert [name for name, _ in threads].count("signals") == 1 and len(threads) > 2, threads
            for name, mask in threads:
                if name != "signals":
                    assert all(mask >> (number - 1) & 1 for number in BLOCKED), (d.role, name, hex(mask))
        for pid in (
            int(p)
            for p in pathlib.Path(f"/proc/{encoder.process.pid}/task/{encoder.process.pid}/children")
            .read_text()
            .split()
        ):
            assert all(mask >> (signal.SIGTERM - 1) & 1 for _, mask in masks(pid)), pid
        for d in cluster.daemons[1:]:
            assert d.stop() == 0, d.text()
        assert cluster.broker.stop() == 0


@pytest.mark.every_level
def test_a_storm_of_signals_harms_no_worker(folder):
    source = many(folder / "in", 4)
    with Cluster(folder) as cluster:
        workers = [
            cluster.start(role, threads=2, cpu_isa=LEVEL, env=preloaded("signal_storm"))
            for role in ("encoder", "qformer", "llm")
        ]
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=8)
        client.add([(p.name.encode(), os.fsencode(p)) for p in sorted(source.iterdir())])
        client.seal()
        progress = client.wait_done(120)
        for w in workers:  # the storm has come, and waits in vain for the main thread
            wait_for(
                lambda: w.process.poll() is not None
                or any(mask >> (signal.SIGUSR1 - 1) & 1 for _, mask in masks(w.process.pid, "SigPnd"))
            )
        assert all(w.process.poll() is None for w in workers) and progress.n_failed == 0
        assert all(s.failures == 0 and s.lease_expiries == 0 for s in progress.stages)
        client.close()
        assert [w.stop() for w in workers] == [0, 0, 0]
    rows, _ = export(folder / "s")
    assert len(rows) == 4 * len(PICTURES) and all(r["caption"] == answer_for(r["key"]) for r in rows)
