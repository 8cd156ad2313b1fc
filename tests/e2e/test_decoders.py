"""Pictures that crash, hang or flood what decodes them: each fails alone, with its reason, and the encoder goes on."""

import io
import os
import signal
import time

import pytest
from PIL import Image

from harness import PICTURES, SLOW, Client, Cluster, answer_for, children, demo_nodes, export, preloaded, wait_for

JPEG = next(p for p in PICTURES if p.suffix == ".jpg")
FAULTS = {
    "crash": ("decoder_crashed", "the decoder crashed (SIGSEGV)"),
    "abort": ("decoder_crashed", "the decoder crashed (SIGABRT)"),
    "exit": ("decoder_crashed", "the decoder crashed (exit code 3)"),
    "nonsense": ("decoder_crashed", "the decoder crashed (it sent a malformed answer)"),
    "kill": ("decoder_memory", "the decoder was killed twice, probably because memory ran out"),
    "hang": ("decoder_timeout", "decoding took more than 1 s (decode_time of the encoder)"),
    "spin": ("decoder_timeout", "decoding took more than 1 s (decode_time of the encoder)"),
}


def marked(how):
    """The picture with a comment that faulty_jpeg.c looks for."""
    data, comment = JPEG.read_bytes(), b"FAULT:" + how.encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def source_of(folder, bad):
    """All examples, with the files of `bad` (name -> bytes) between them."""
    source = folder / "in"
    source.mkdir()
    for p in PICTURES:
        (source / p.name).write_bytes(p.read_bytes())
    for name, data in bad.items():
        (source / name).write_bytes(data)
    return source


def begin(cluster, folder, source, unit_items=4):
    client = Client(cluster.endpoint)
    client.hello()
    client.open(folder / "s", demo_nodes(), unit_items=unit_items)
    client.add([(p.name.encode(), os.fsencode(p)) for p in sorted(source.iterdir())])
    client.seal()
    return client


def start_all(cluster, env=None, **conf):
    encoder = cluster.start("encoder", threads=1, env=env, **conf)
    for role in ("qformer", "llm"):
        cluster.start(role, threads=1)
    return encoder


def decoders(encoder):
    return [pid for pid, name in children(encoder.process.pid).items() if name == "encoder"]


def check(folder, bad):
    """bad: name -> code and message."""
    rows, _ = export(folder / "s")
    assert len(rows) == len(PICTURES) + len(bad)
    for row in rows:
        if row["key"] in bad and bad[row["key"]]:
            assert row["error"] == dict(zip(("code", "message"), bad[row["key"]])), row
        else:
            assert row["caption"] == answer_for(JPEG.name if row["key"] in bad else row["key"]), row


@pytest.mark.parametrize("unit_items", [1, 7, 64])
def test_a_picture_that_ruins_its_decoder_fails_alone(folder, unit_items):
    names = {how: f"{n}_{how}.jpg" for n, how in enumerate([*FAULTS, "escape"])}
    source = source_of(folder, {name: marked(how) for how, name in names.items()})
    with Cluster(folder) as cluster:
        encoder = start_all(cluster, preloaded("faulty_jpeg"), decode_threads=2, decode_time="1s")
        client = begin(cluster, folder, source, unit_items)
        progress = client.wait_done(60)
        assert (
            progress.n_failed == len(FAULTS)
            and progress.stages[0].failures == 0
            and progress.stages[0].lease_expiries == 0
        )
        assert encoder.process.poll() is None and "less_confined" not in encoder.text()
        assert len(decoders(encoder)) <= 2
        client.close()
        assert encoder.stop() == 0
    check(folder, {name: FAULTS.get(how) for how, name in names.items()})


def test_more_memory_than_the_limit(folder):
    large = io.BytesIO()
    Image.new("RGB", (6000, 4000), "red").save(large, "jpeg")
    source = source_of(folder, {"large.jpg": large.getvalue()})
    if SLOW > 1:
        pytest.skip("a sanitizer's memory has no bounds")
    with Cluster(folder) as cluster:
        start_all(cluster, decode_memory="32MiB")
        client = begin(cluster, folder, source)
        assert client.wait_done(60).n_failed == 1
        client.close()
    check(folder,
          {"large.jpg": ("decoder_memory", "decoding took more memory than 32MiB (decode_memory of the encoder)")})


def bomb():
    """A progressive JPEG whose last scan comes a hundred times more: each is a pass over the whole picture."""
    data = io.BytesIO()
    Image.new("RGB", (8000, 8000), "red").save(data, "jpeg", progressive=True)
    data = data.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 100 + data[-2:]


def test_more_time_than_the_limit(folder):
    source = source_of(folder, {"bomb.jpg": bomb()})
    with Cluster(folder) as cluster:
        encoder = start_all(cluster, decode_time="1s")
        client = begin(cluster, folder, source)
        assert client.wait_done(60).n_failed == 1
        assert client.progress().stages[0].lease_expiries == 0
        client.close()
        assert encoder.stop() == 0
    check(folder, {"bomb.jpg": ("decoder_timeout", "decoding took more than 1 s (decode_time of the encoder)")})


def test_a_decoder_that_somebody_kills_costs_nothing(folder):
    source = source_of(folder, {f"{n}_{JPEG.name}": JPEG.read_bytes() for n in range(100)})
    with Cluster(folder) as cluster:
        encoder = start_all(cluster)
        client = begin(cluster, folder, source)
        for n in (8, 40, 72):
            wait_for(lambda: client.progress().n_done >= n)
            for pid in decoders(encoder):
                os.kill(pid, signal.SIGKILL)
        progress = client.wait_done(60)
        assert progress.n_failed == 0 and progress.stages[0].failures == 0
        client.close()
    check(folder, {f"{n}_{JPEG.name}": None for n in range(100)})


@pytest.mark.parametrize("how", ["spin", "hang"])
def test_decoders_die_with_the_encoder(folder, how):
    source = source_of(folder, {"0.jpg": marked(how)})
    with Cluster(folder) as cluster:
        encoder = start_all(cluster, preloaded("faulty_jpeg"), decode_threads=2, decode_time="1h")
        client = begin(cluster, folder, source)
        wait_for(lambda: len(decoders(encoder)) == 2)
        pids = decoders(encoder)
        time.sleep(0.5)  # the picture is in its decoder by now, or the test is the weaker for it
        encoder.process.kill()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10)
        client.close()


def test_without_seccomp_it_says_so_once_and_goes_on(folder):
    source = source_of(folder, {"0.jpg": marked("crash")})
    with Cluster(folder) as cluster:
        encoder = start_all(cluster, {**preloaded("faulty_jpeg"), "NO_SECCOMP": "1"}, decode_threads=3)
        client = begin(cluster, folder, source)
        assert client.wait_done(60).n_failed == 1
        client.close()
        assert encoder.stop() == 0
        assert (
            encoder.text().count("decoder_less_confined") == 1
            and "a filter of system calls: Invalid argument" in encoder.text()
        )
    check(folder, {"0.jpg": FAULTS["crash"]})
