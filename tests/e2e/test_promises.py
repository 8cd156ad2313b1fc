"""Promises that no other test checks: docs/promises.md has all of them."""

import random
import re
import shutil

from harness import ROOT, SLOW, Cluster, preloaded, store_rows, wait_for
from test_job_table import connected, filled, submit


def test_what_was_told_survives_a_power_cut(folder):
    """What is left is what was synced: a job that was accepted, what was asked of it, and the items called done."""
    seed = random.getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    state, left = folder / "state", folder / "left"
    env = {**preloaded("power_cut"), "POWER_CUT": str(state), "POWER_CUT_LEFT": str(left)}

    def cut(cluster):
        """The power fails; a client of the next broker."""
        cluster.broker.process.kill()
        cluster.broker.process.wait()
        shutil.rmtree(state)
        shutil.copytree(left, state)
        cluster.broker = cluster.start("broker", env=env, **cluster.broker_conf)
        return connected(cluster)

    with Cluster(folder, env, state_dir=state) as cluster:
        for n in range(1, 4):  # right after ACCEPTED, and half-way
            assert filled(cluster, n, 4000) == n
            client = cut(cluster)
            row = client.jobs()[n]
            assert row.n_items == 4000 and row.sealed
        half, opened = submit(cluster, b"cut off half-way")
        half.add([(b"key-%06d" % i, b"/pictures/%06d.jpg" % i) for i in range(500)])
        client = cut(cluster)
        assert submit(cluster, b"cut off half-way")[1].n_items == 500
        assert client.control(2, "pause").wanted == 1
        assert client.control(3, "cancel").wanted == 2
        client = cut(cluster)
        assert [client.jobs()[n].wanted for n in (1, 2, 3)] == [0, 1, 2]
        cluster.null_workers()
        n_done = 0
        for _ in range(3):
            want = min(n_done + rng.randrange(1, 1500), 4000)
            n_told = wait_for(lambda: (n := client.jobs()[1].n_done) >= want and n, step=0.001)
            client = cut(cluster)
            n_done = wait_for(lambda: client.jobs()[1].n_done)
            assert n_done >= n_told
        wait_for(lambda: client.jobs()[1].ended_ms and not client.jobs()[1].state)
        assert cluster.broker.stop() == 0
    records = store_rows(state / "jobs" / "00000001.lmdb")
    assert sorted(records) == list(range(4000)) and not any(r.HasField("error") for r in records.values())


def test_jumps_of_the_wall_clock_change_nothing(folder):
    """Of the broker's and the workers', while leases are extended several times."""
    env = preloaded("jumping_clock")
    with Cluster(folder, env, state_dir=folder / "state", lease=f"{SLOW}s") as cluster:
        assert filled(cluster, 1, 16000) == 1
        for role in ("encoder", "qformer", "llm"):
            cluster.start(role, env=env, device="null", **({} if role == "llm" else {"null_shape": "1,8"}))
        client = connected(cluster)
        wait_for(lambda: client.jobs()[1].ended_ms and not client.jobs()[1].state)
        row = client.jobs()[1]
        assert (row.n_done, row.n_failed) == (16000, 0)
        log = cluster.broker.text()
        assert "event=job_done job=1" in log
        for bad in ("expired", "stalled", "benched", "worker_lost", "hung"):
            assert bad not in log, log
        assert cluster.broker.stop() == 0


def test_the_tests_that_the_page_names_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "promises.md").read_text()))
    there = {
        name for path in (ROOT / "tests").glob("*/test_*.*")
        for name in re.findall(r"^(?:def|static void) (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert named and named <= there
