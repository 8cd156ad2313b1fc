"""Models that workers offer to a broker: jobs from machines without a checkpoint."""

import json
import os
import random
import shutil

import pytest
from harness import (
    IMAGES, MODEL, ROOT, Client, Cluster, Refused, blipline, caption, delimited, export, undelimited, wait_for,
)
from proto import store_pb2, wire_pb2
from test_submit import restart, submit

SMALL = ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
         "tokenizer.json", "tokenizer_config.json")
ROLES = ("encoder", "qformer", "llm")


@pytest.fixture
def home(folder, monkeypatch):
    """The user of a machine without checkpoints."""
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("BLIPLINE_BROKER", raising=False)
    return folder / "home"


def on_the_workers(folder, name, model=MODEL):
    """A checkpoint under a name that this machine does not know."""
    copy = folder / "disk" / name
    shutil.copytree(model, copy)
    return copy


def models(cluster):
    return json.loads(blipline("models", "--broker", cluster.endpoint, "--json").stdout)["models"]


def offered(cluster, n_stages=3, n_models=1):
    def complete():
        found = models(cluster)
        return found if len(found) == n_models and sum(len(m["stages"]) for m in found) == n_stages else None
    return wait_for(complete)


def submit_by_name(cluster, name, *more, **kwargs):
    return submit(cluster.endpoint, IMAGES, "--model", name, *more, **kwargs)


def n_jobs(state):
    return len(list((state / "jobs").iterdir()))


def test_a_job_from_a_machine_without_the_checkpoint(folder, home):
    state, model = folder / "state", on_the_workers(folder, "far-away")
    with Cluster(folder, state_dir=state) as cluster:
        assert models(cluster) == []
        assert "no worker has offered" in blipline("models", "--broker", cluster.endpoint).stdout
        done = submit_by_name(cluster, "far-away", check=False)
        assert done.returncode == 2 and "no worker has offered a model to the broker" in done.stderr, done
        for role in ROLES:
            cluster.start(role, model=model)
        [found] = offered(cluster)
        assert found["name"] == "far-away" and found["writes_captions"] and found["missing"] == []
        assert [(s["stage"], s["dtype"], s["workers"]) for s in found["stages"]] == [
            ("encode", "fp32", 1), ("qformer", "fp32", 1), ("llm", "fp32", 1)]
        assert "far-away  (captions)" in blipline("models", "--broker", cluster.endpoint).stdout
        done = submit_by_name(cluster, "far-away", "--wait")
        assert "job 1: 24 of 24 items done" in done.stderr, done
        caption(IMAGES, folder / "s")
        assert export(state / "jobs" / "00000001.lmdb")[1] == export(folder / "s")[1]
        [cache] = (home / ".cache/blipline/models").iterdir()
        assert sorted(p.name for p in cache.iterdir()) == sorted(n for n in SMALL if (MODEL / n).exists())
        (cache / "tokenizer.json").write_text("{}")  # is found out, and fetched again
        assert submit_by_name(cluster, "far-away").stdout == "2\n"
        assert (cache / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()
        for d in cluster.daemons[1:]:
            d.stop()
        restart(cluster)
        wait_for(lambda: cluster.broker.text().count("event=ready") == 2)
        [found] = models(cluster)
        assert found["missing"] == ["encode", "qformer", "llm"] and len(found["stages"]) == 3
        shutil.rmtree(home / ".cache")
        assert submit_by_name(cluster, "far-away").stdout == "3\n"  # it waits for workers


def test_everything_is_checked_before_anything_is_sent(folder, home):
    state, model = folder / "state", on_the_workers(folder, "far-away")
    scorer = on_the_workers(folder, "far-scorer", ROOT / "models" / "blip2-itm-demo")
    with Cluster(folder, state_dir=state) as cluster:
        for role in ROLES:
            cluster.start(role, model=model)
        for role in ROLES[:2]:
            cluster.start(role, f"score-{role}", model=scorer, **({"exif_orientation": "yes"} if role == "encoder"
                                                                  else {}))
        offered(cluster, 5, 2)
        for more, what in (
            (("--prompt", "a <image> of"), "the image token"),
            (("--prompt", "about {nothing}"), "nothing"),
            (("--max-new-tokens", "2000"), "positions"),
            (("--llm-dtype", "bf16"), "no llm worker of far-away computes in bf16; there are workers for fp32"),
            (("--exif-orientation", "apply"), "in fp32 with exif_orientation; there are workers for fp32"),
            (("--score=itc", "--score-model", "far-away"), "has no ITC and ITM heads"),
            (("--score=itc", "--score-model", "far-scorer"), "there are workers for fp32 with exif_orientation"),
            (("--score-model", "far-scores", "--score=itc"), "did you mean far-scorer? (blipline models lists them)"),
        ):
            done = submit_by_name(cluster, "far-away", *more, check=False)
            assert done.returncode in (1, 2) and what in done.stderr, (more, done)
        done = submit_by_name(cluster, "far-scorer", check=False)
        assert done.returncode == 2 and "is a retrieval checkpoint" in done.stderr, done
        done = submit(cluster.endpoint, IMAGES, check=False)
        assert done.returncode == 2 and "--model NAME is missing" in done.stderr, done
        assert n_jobs(state) == 0
        cluster.start("llm", "other-llm", model=model)
        wait_for(lambda: 2 in [s["workers"] for m in models(cluster) for s in m["stages"]])
        assert submit_by_name(cluster, "far-away").stdout == "1\n"


def test_two_models_of_one_name(folder, home):
    state, model = folder / "state", on_the_workers(folder / "one", "twin")
    other = on_the_workers(folder / "two", "twin")
    weights = other / "model-00002-of-00002.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with Cluster(folder, state_dir=state) as cluster:
        for role in ROLES:
            cluster.start(role, model=model)
        [first] = offered(cluster)
        cluster.start("llm", "llm-2", model=other)
        cluster.start("qformer", "qformer-2", model=other)
        [both] = wait_for(lambda: [m for m in models(cluster) if sum(s["workers"] for s in m["stages"]) == 5])
        prints = [s["fingerprint"] for s in both["stages"]]
        assert len(set(prints)) == 4
        done = submit_by_name(cluster, "twin", check=False)
        assert done.returncode == 2 and "two models are named twin" in done.stderr, done
        assert sum(p in done.stderr for p in prints) == 2 and os.uname().nodename in done.stderr, done
        # the first is gone: its place is taken
        for d in cluster.daemons[2:4]:
            d.stop()
        wait_for(lambda: sum(s["workers"] for m in models(cluster) for s in m["stages"]) == 3)
        assert submit_by_name(cluster, "twin").stdout == "1\n"
        (other / "config.json").write_text((other / "config.json").read_text() + "\n")
        for d in cluster.daemons[4:]:
            d.stop()
        cluster.start("llm", "llm-3", model=other)
        wait_for(lambda: len(models(cluster)) == 2)
        done = submit_by_name(cluster, "twin", check=False)
        assert done.returncode == 2 and "their files differ" in done.stderr, done


class Worker(Client):
    """One that offers what it is told to."""

    def join(self, model):
        stage = model.stages[0]
        self.send(hello=wire_pb2.Hello(
            role=wire_pb2.Hello.ROLE_WORKER, min_version=2, max_version=2, host=b"python",
            boot_nonce=random.getrandbits(63), pid=1, stage=stage.stage, device=b"cpu", dtype=stage.dtype,
            fingerprint=stage.fingerprint, model=model.name, window_items=1, window_bytes=1 << 20))
        assert self.receive()[0].welcome.takes_models
        return self

    def offer(self, model):
        self.send([model], model_offer=wire_pb2.ModelOffer())

    def wanted(self):
        return self.receive()[0].model_want.model

    def give(self, model, files):
        tensors = [wire_pb2.Tensor(dtype=wire_pb2.DTYPE_U8, shape=[len(f)], transport=wire_pb2.TRANSPORT_FRAME,
                                   n_frames=1) for f in files]
        envelope = wire_pb2.Envelope(version=2, tensors=tensors, model_files=wire_pb2.ModelFiles(model=model.id))
        self.socket.send_multipart([envelope.SerializeToString(), *files])


def listed(cluster):
    client = Client(cluster.endpoint)
    client.hello()
    client.seq += 1
    client.send(model_list=wire_pb2.ModelList())
    envelope, frames = client.receive()
    rows = [row for frame in frames for row in undelimited(frame, store_pb2.Model)]
    assert len(rows) == envelope.n_rows
    client.close()
    return rows


def a_model(folder, name="far-away"):
    """What a worker of the image encoder offers, and the files."""
    model = on_the_workers(folder, name)
    with Cluster(folder, state_dir=folder / "first") as cluster:
        cluster.start("encoder", model=model)
        [row] = wait_for(lambda: listed(cluster))
    row.stages[0].n_workers = 0
    return row, [(MODEL / SMALL[f.file - 1]).read_bytes() for f in row.files]


def kept(state):
    return [p for p in (state / "models").iterdir() if (p / "model").exists()]


def test_a_broker_that_dies_gets_the_files_again(folder, home):
    row, files = a_model(folder)
    state = folder / "state"
    with Cluster(folder, state_dir=state) as cluster:
        for dies_after in ("want", "files"):
            worker = Worker(cluster.endpoint).join(row)
            worker.offer(row)
            assert worker.wanted() == row.id
            if dies_after == "files":
                worker.give(row, files)
            restart(cluster)
            worker.close()
            assert len(kept(state)) <= (dies_after == "files")
        worker = Worker(cluster.endpoint).join(row)
        worker.offer(row)
        if not kept(state):
            assert worker.wanted() == row.id
            worker.give(row, files)
        wait_for(lambda: listed(cluster))
        [path] = kept(state)
        for f, data in zip(row.files, files):
            assert (path / SMALL[f.file - 1]).read_bytes() == data
        restart(cluster)
        assert [m.id for m in listed(cluster)] == [row.id]
        worker.close()


def test_lying_workers_change_nothing(folder, home):
    row, files = a_model(folder)
    state = folder / "state"
    with Cluster(folder, state_dir=state) as cluster:
        liar = Worker(cluster.endpoint).join(row)
        for change in ("id", "size", "order", "name", "stage"):
            lie = store_pb2.Model.FromString(row.SerializeToString())
            if change == "id":
                lie.id = bytes(16)
            elif change == "size":
                lie.files[0].size_bytes = 1 << 31
            elif change == "order":
                lie.files[0].file, lie.files[1].file = lie.files[1].file, lie.files[0].file
            elif change == "name":
                lie.name = b"../../etc"
            else:
                lie.stages[0].dtype = wire_pb2.DTYPE_BF16
            n = cluster.broker.text().count("event=bad_model")
            if n % 3 == 0 and n:
                wait_for(lambda: cluster.broker.text().count("event=peer_dropped") == n // 3)
                liar.close()
                liar = Worker(cluster.endpoint).join(row)
            liar.offer(lie)
            wait_for(lambda: cluster.broker.text().count("event=bad_model") == n + 1)
        liar.close()
        liar = Worker(cluster.endpoint).join(row)
        liar.offer(row)
        assert liar.wanted() == row.id
        liar.give(row, [b"{}" + f[2:] for f in files])  # other bytes
        wait_for(lambda: "these are not the bytes of its config.json" in cluster.broker.text())
        honest = Worker(cluster.endpoint).join(row)
        honest.offer(row)
        assert honest.wanted() == row.id
        liar.give(row, [b"x" * len(f) for f in files])  # it was not asked
        honest.give(row, files)
        wait_for(lambda: listed(cluster))
        [path] = kept(state)
        assert (path / "config.json").read_bytes() == files[0]
        client = Client(cluster.endpoint)
        client.hello()
        for body in ({"model_offer": wire_pb2.ModelOffer()}, {"model_get": wire_pb2.ModelGet(model=b"1" * 16)}):
            with pytest.raises(Refused):
                client.ask([row] if "model_offer" in body else (), **body)
        client.close()
        with pytest.raises(Refused):  # of workers
            honest.ask(model_list=wire_pb2.ModelList())
        (path / "tokenizer.json").write_bytes(b"damaged")
        client = Client(cluster.endpoint)
        client.hello()
        with pytest.raises(Refused):
            client.ask(model_get=wire_pb2.ModelGet(model=row.id))
        while honest.receive()[0].WhichOneof("body") != "model_want":
            pass
        honest.give(row, files)
        wait_for(lambda: (path / "tokenizer.json").read_bytes() != b"damaged")
        for worker in (liar, honest, client):
            worker.close()
