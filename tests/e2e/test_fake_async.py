"""The daemons with an asynchronous device: fake_async_device.c replaces the CUDA operators. It computes what the CPU
does,
delivers results when they are waited for, and ends a process that relies on more than tensor/ops.h promises."""

import re
import signal
import subprocess

import pytest
from harness import BUILD, IMAGES, PATIENCE, Client, Cluster, answer_for, caption, demo_nodes, export, many, wait_for

FAKE_ASYNC = {"device": "cuda:0", "cuda_library": BUILD / "tests" / "e2e" / "libfake_async.so"}
COPIES = 4
N = 24 * COPIES


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return many(tmp_path_factory.mktemp("fake_async") / "in", COPIES)


def open_job(cluster, folder, source, unit_items, value_bytes=4):
    client = Client(cluster.endpoint)
    client.hello()
    nodes = demo_nodes()
    for n in nodes:
        n.out_bytes = n.out_bytes * value_bytes // 4
    client.open(folder / "s", nodes, unit_items=unit_items)
    client.add([(p.name.encode(), str(p).encode()) for p in sorted(source.iterdir())])
    client.seal()
    return client


def all_right(folder):
    rows, _ = export(folder / "s")
    return len(rows) == N and all(r["caption"] == answer_for(r["key"]) for r in rows)


# Units larger than batches; batches of many units, whose features land in one place; batches that end anywhere.
@pytest.mark.parametrize("unit_items, encoder_batch, qformer_batch", [(32, 5, 4), (3, 32, 32), (7, 16, 5)])
def test_a_job_on_a_device_behind_the_host(folder, source, unit_items, encoder_batch, qformer_batch):
    with Cluster(folder) as cluster:
        encoder = cluster.start("encoder", threads=1, batch=encoder_batch, decode_threads=2, **FAKE_ASYNC)
        qformer = cluster.start("qformer", threads=1, batch=qformer_batch, **FAKE_ASYNC)
        llm = cluster.start("llm", threads=1, **FAKE_ASYNC)
        client = open_job(cluster, folder, source, unit_items)
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and all(s.failures == 0 and s.lease_expiries == 0 for s in progress.stages)
        client.close()
        for d in (encoder, qformer, llm):
            assert d.stop() == 0
            assert re.search(
                r"event=ready .*device=cuda:0 dtype=fp32 .*load_ms=\d+ device_bytes=[1-9]\d* free_bytes=[1-9]", d.text()
            )
            assert "event=mps status=" in d.text()
        assert f"batch={encoder_batch} window_items=128" in encoder.text()
        assert "event=cache kv_rows=65536 of=65536" in llm.text() and "batch=512" in llm.text()
    assert all_right(folder)


def test_bf16_takes_half_the_bytes(folder, source):
    with Cluster(folder) as cluster:
        for role in ("encoder", "qformer", "llm"):
            cluster.start(role, threads=1, dtype="bf16", **FAKE_ASYNC)
        client = open_job(cluster, folder, source, 16, value_bytes=2)  # a tensor with more would be refused
        started = wait_for(
            lambda: all("event=ready" in d.text() for d in cluster.daemons[1:])
            or any(d.process.poll() for d in cluster.daemons[1:])
        )
        if started and any("device cpu" in d.text() and "BF16" in d.text() for d in cluster.daemons[1:]):
            pytest.skip("no bf16 on this processor")
        assert client.wait_done(120).n_failed == 0
        client.close()
    assert all_right(folder)


def test_sigterm_with_batches_under_way(folder, source):
    with Cluster(folder) as cluster:
        first = [cluster.start(role, f"{role}1", threads=1, batch=4, **FAKE_ASYNC) for role in ("encoder", "qformer")]
        cluster.start("llm", threads=1, **FAKE_ASYNC)
        client = open_job(cluster, folder, source, 8)
        wait_for(lambda: client.progress().n_done >= 16)
        for d in first:
            assert d.stop() == 0
        assert all(s.failures == 0 and s.lease_expiries == 0 for s in client.progress().stages)
        for role in ("encoder", "qformer"):
            cluster.start(role, f"{role}2", threads=1, batch=4, **FAKE_ASYNC)
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and "attempt_failed" not in cluster.broker.text()
        client.close()
    assert all_right(folder)


def test_units_of_a_broker_that_is_gone_are_dropped(folder, source):
    """Their downloads are under way when they become stale."""
    with Cluster(folder) as cluster:
        workers = [cluster.start(role, threads=1, batch=4, **FAKE_ASYNC) for role in ("encoder", "qformer", "llm")]
        client = open_job(cluster, folder, source, 8)
        wait_for(lambda: client.progress().n_done >= 16)
        cluster.broker.stop(signal.SIGKILL)
        client.close()
        cluster.start("broker", "broker2", **cluster.broker_conf)
        client = Client(cluster.endpoint)
        client.hello()
        client.open(folder / "s", demo_nodes(), unit_items=8, create=False)
        client.seal()
        assert client.wait_done(120).n_failed == 0
        client.close()
        for d in workers:
            assert d.stop() == 0
    assert all_right(folder)


@pytest.mark.parametrize("role, calls", [("encoder", 700), ("qformer", 450), ("llm", 800)])
def test_a_device_that_fails_ends_its_worker_and_others_take_over(folder, source, monkeypatch, role, calls):
    with Cluster(folder) as cluster:
        for other in {"encoder", "qformer", "llm"} - {role}:
            cluster.start(other, threads=1, **FAKE_ASYNC)
        monkeypatch.setenv("FAKE_ASYNC_FAIL_IN", str(calls))
        broken = cluster.start(role, f"{role}1", threads=1, batch=4, **FAKE_ASYNC)
        monkeypatch.delenv("FAKE_ASYNC_FAIL_IN")
        client = open_job(cluster, folder, source, 8)
        assert broken.process.wait(60 * PATIENCE) == 1
        assert "event=ready" in broken.text() and re.search(
            r"event=ended msg=.*failed: Input/output error: the card fell off the bus", broken.text()
        )
        cluster.start(role, f"{role}2", threads=1, batch=4, **FAKE_ASYNC)
        assert client.wait_done(120).n_failed == 0
        client.close()
    assert all_right(folder)


def test_a_device_that_fails_while_loading_is_said(folder, monkeypatch):
    with Cluster(folder) as cluster:
        monkeypatch.setenv("FAKE_ASYNC_FAIL_IN", "5")
        for role in ("encoder", "qformer", "llm"):
            worker = cluster.start(role, threads=1, **FAKE_ASYNC)
            assert worker.process.wait(60 * PATIENCE) == 70
            assert "the card fell off the bus" in worker.text() and "event=ready" not in worker.text()


def test_the_cache_takes_what_the_card_has(folder, source, monkeypatch):
    with Cluster(folder) as cluster:
        for role in ("encoder", "qformer"):
            cluster.start(role, threads=1, **FAKE_ASYNC)
        monkeypatch.setenv("FAKE_ASYNC_MEMORY", str(320 << 20))
        llm = cluster.start("llm", threads=1, positions=80, memory_share="0.25", **FAKE_ASYNC)
        monkeypatch.delenv("FAKE_ASYNC_MEMORY")
        client = open_job(cluster, folder, source, 16)
        assert client.wait_done(120).n_failed == 0
        client.close()
        found = re.search(r"event=cache kv_rows=(\d+) of=40960 bytes=(\d+) sequences=(\d+) positions=80 batch=(\d+)",
                          llm.text())
        assert found, llm.text()
        rows, n_bytes, sequences, batch = map(int, found.groups())
        assert 80 <= rows < 40960 and batch == rows // 80 and n_bytes < 80 << 20 and sequences >= 64
        assert "event=mps status=missing" not in llm.text() or "take turns" in llm.text()
    assert all_right(folder)


def test_a_card_too_small_for_one_sequence(folder, monkeypatch):
    with Cluster(folder) as cluster:
        monkeypatch.setenv("FAKE_ASYNC_MEMORY", str(11 << 20))
        llm = cluster.start("llm", threads=1, **FAKE_ASYNC)
        assert llm.process.wait(60) == 70
        assert (
            re.search(
                r"a sequence takes up to \d+ rows of the cache, \d+ bytes each. Of the device's \d+ bytes \d+ are left",
                llm.text(),
            )
            or "bytes of activations" in llm.text()
        )


def test_types_that_do_not_fit_are_refused(folder):
    with Cluster(folder) as cluster:
        for conf, why in (
            ({"dtype": "fp16"}, "device = cpu computes in fp32 or bf16"),
            ({"dtype": "fp8"}, "device = cpu computes"),
            ({"dtype": "int8"}, "fp32, bf16, fp16 or fp8"),
            ({"device": "gpu"}, "cpu, cuda:N"),
            ({"memory_share": "2"}, "from 0.05 to 1"),
        ):
            worker = cluster.start("encoder", **conf)
            assert worker.process.wait(30) == 78
            assert why in worker.text()
        worker = cluster.start("llm", admit="some")
        assert worker.process.wait(30) == 78 and "admit = some: expected all or empty" in worker.text()
        worker = cluster.start("encoder", device="cuda:0", cuda_library="/nowhere/lib.so")
        assert worker.process.wait(30) == 70 and "/nowhere/lib.so is not there" in worker.text()


def test_static_batches_give_the_same(folder, source):
    with Cluster(folder) as cluster:
        for role in ("encoder", "qformer"):
            cluster.start(role, threads=1)
        cluster.start("llm", threads=1, batch=6, admit="empty", positions=60)
        client = open_job(cluster, folder, source, 16)
        assert client.wait_done(120).n_failed == 0
        client.close()
    assert all_right(folder)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_null_workers_send_the_type_of_the_recipe(folder, dtype):
    """The plan's limits are those of two bytes a value."""
    assert caption(IMAGES, folder / "s", "--device", "null", "--dtype", dtype, check=False).returncode == 0
    rows, _ = export(folder / "s")
    assert len(rows) == 24 and all(r.get("caption") == "null" for r in rows)


def test_operators_of_another_build_are_not_called(folder):
    """A shared object that says nothing of its headers, and one that was built with others."""
    for n, words in enumerate(("", "const unsigned ops_cuda_abi = 1;")):
        other = folder / f"lib{n}.so"
        source = words + " int ops_cuda_new(void); int ops_cuda_new(void) { __builtin_trap(); }"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(other)],
            input=source, text=True, check=True, timeout=60,
        )
        done = caption(IMAGES, folder / "s", "--device", "cuda:0", "--cuda-library", other, check=False)
        assert (
            done.returncode == 1
            and f"{other} is of another build" in done.stderr
            and "build and install both together" in done.stderr
        ), done.stderr
        assert not (folder / "s").exists()
