"""Stores with damage that no checksum finds: rows that are gone, pages that are nonsense. Nothing is passed over in
silence."""

import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import zlib

import lmdb
import pytest
from harness import BUILD, IMAGES, SLOW, Client, Cluster, Refused, blipline, caption, many, null_nodes, wait_for
from proto import store_pb2

TRIALS = 40
MOST_CORE = resource.getrlimit(resource.RLIMIT_CORE)[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    (folder / "in").mkdir()
    caption(many(folder / "in", 4), folder / "s", "--unit", "8", "--device", "null")
    return folder / "s"


def delete(store, table, key):
    env = lmdb.open(str(store), max_dbs=16)
    with env.begin(write=True) as txn:
        assert txn.delete(key, db=env.open_db(table, txn))
    env.close()


def read(command, store, *more):
    return subprocess.run([str(BUILD / "blipline"), command, str(store), *more], capture_output=True, timeout=60 * SLOW)


def test_a_done_item_without_a_record_is_damage(folder, store):
    shutil.copytree(store, folder / "s")
    delete(folder / "s", b"items", (17).to_bytes(8, "big"))
    for command in ("export", "stats", "verify"):
        done = read(command, folder / "s")
        assert done.returncode == 1, (command, done)
    done = read("export", folder / "s")
    assert len(done.stdout.splitlines()) == 95
    assert b"item 17" in done.stderr and b"its record is missing" in done.stderr and b"1 damaged item" in done.stderr


def test_a_unit_that_is_gone_is_not_the_end(folder, store):
    shutil.copytree(store, folder / "s")
    delete(folder / "s", b"manifest", (3).to_bytes(4, "big"))
    for command in ("export", "stats", "verify"):
        assert read(command, folder / "s").returncode == 1, command
    done = read("export", folder / "s")
    assert len(done.stdout.splitlines()) == 88
    assert b"unit 3: its manifest row is missing" in done.stderr


def test_the_last_unit_may_be_the_one_that_is_gone(folder, store):
    shutil.copytree(store, folder / "s")
    delete(folder / "s", b"manifest", (11).to_bytes(4, "big"))
    done = read("get", folder / "s", "--item", "95")
    assert done.returncode == 1 and b"unit 11: its manifest row is missing" in done.stderr, done
    assert read("export", folder / "s").returncode == 1
    done = caption(folder.parent, folder / "s", "--unit", "8", "--device", "null", check=False)
    assert (
        done.returncode == 1 and "unit 11" in done.stderr
    ), done.stderr  # what is listed is not known: pictures would come twice


def test_an_entry_of_keys_that_no_item_has_is_damage(folder, store):
    shutil.copytree(store, folder / "s")
    assert read("verify", folder / "s").returncode == 0
    env = lmdb.open(str(folder / "s"), max_dbs=16)
    with env.begin(write=True) as txn:
        assert txn.put(bytes(16), (3).to_bytes(8, "big"), db=env.open_db(b"keys", txn, create=False))
    env.close()
    done = read("verify", folder / "s")
    assert done.returncode == 1 and b"an entry of the table keys" in done.stdout + done.stderr, done


def test_without_counters_the_end_is_still_found(folder, store):
    shutil.copytree(store, folder / "s")
    delete(folder / "s", b"meta", b"counters")
    assert len(read("export", folder / "s").stdout.splitlines()) == 96
    for command, *more in (("get", "--item", "1000"), ("stats",), ("verify",)):
        done = read(command, folder / "s", *more)
        assert done.returncode == 1, (command, done)


def crashing_export(folder, store, number):
    """An export that is in the middle of its work when the signal comes."""
    (folder / "cwd").mkdir()
    process = subprocess.Popen(
        [str(BUILD / "blipline"), "export", str(store)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder / "cwd",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (MOST_CORE, MOST_CORE)),
    )
    wait_for(lambda: b"data.mdb" in pathlib.Path(f"/proc/{process.pid}/maps").read_bytes())
    process.send_signal(number)
    says = process.communicate(timeout=60 * SLOW)[1]
    return process.returncode, says, list((folder / "cwd").iterdir())


@pytest.mark.skipif(bool(os.environ.get("SLOW_BUILD")), reason="a sanitizer's own report is wanted there")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_crash_leaves_a_core_dump_and_an_assertion_is_no_damage(folder, number):
    source = folder / "in"
    source.mkdir()
    caption(many(source, 100), folder / "s", "--device", "null")  # more rows than a pipe holds
    code, says, left = crashing_export(folder, folder / "s", number)
    if number == signal.SIGABRT:
        assert code == -number and not says
    else:
        assert code == 1 and b"crashed while reading" in says and b"/s/data.mdb" in says
    if (
        MOST_CORE
        and "/" not in (pattern := pathlib.Path("/proc/sys/kernel/core_pattern").read_text())
        and "|" not in pattern
    ):
        assert left, "no core dump"


@pytest.mark.skipif(bool(os.environ.get("SLOW_BUILD")), reason="a sanitizer's own report is wanted there")
def test_nonsense_in_pages_ends_in_a_message_or_changes_nothing(folder, store):
    seed = int(os.environ.get("BLIPLINE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    draw = random.Random(seed)
    good = read("export", store).stdout
    data = (store / "data.mdb").read_bytes()
    print("seed", seed, "(BLIPLINE_TEST_SEED)")
    shutil.copytree(store, folder / "s")
    for trial in range(TRIALS):
        bad = bytearray(data)
        for _ in range(draw.choice((1, 2, 8))):
            at, n = draw.randrange(8192, len(bad) - 64), draw.choice((1, 4, 64))
            bad[at : at + n] = draw.randbytes(n)
        (folder / "s" / "data.mdb").write_bytes(bad)
        for command in ("export", "stats", "verify"):
            done = read(command, folder / "s")
            assert done.returncode in (0, 1), (trial, command, done)
            assert done.returncode == 0 or done.stderr or done.stdout, (trial, command)
            if command == "export" and done.returncode == 0:
                assert done.stdout == good, trial


def test_what_standard_output_does_not_take_is_an_error(store):
    for arguments in (("export", store), ("stats", store), ("get", store, "--item", "3"), ("help",)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [str(BUILD / "blipline"), *map(str, arguments)],
                stdout=full, stderr=subprocess.PIPE, timeout=60 * SLOW, check=False,
            )
        assert done.returncode == 1 and b"No space left on device" in done.stderr, (arguments, done)


def test_an_empty_name_for_the_store_is_none(folder):
    done = blipline("caption", IMAGES, "-o", "", "--device", "null", check=False)
    assert done.returncode == 2 and "-o STORE is missing" in done.stderr


# -- pages --

PAGE = 4096


def newest_meta(data):
    return max((struct.unpack_from("<IIQQ 48s 48s QQ", data, n * PAGE + 16) for n in range(2)), key=lambda m: m[7])


def free_list_places(data):
    """Where the numbers of the free list are in the file."""
    meta = newest_meta(data)
    depth, root = struct.unpack_from("<H", meta[4], 6)[0], struct.unpack_from("<Q", meta[4], 40)[0]
    assert depth == 1, depth
    lower = struct.unpack_from("<H", data, root * PAGE + 12)[0]
    found = []
    for i in range((lower - 16) // 2):
        at = root * PAGE + struct.unpack_from("<H", data, root * PAGE + 16 + 2 * i)[0]
        flags, key_bytes = struct.unpack_from("<HH", data, at + 4)
        value = at + 8 + key_bytes
        if not flags:
            found += [value + 8 * k for k in range(1, 1 + struct.unpack_from("<Q", data, value)[0])]
    return found


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A store with work left, and a free list: it was written in many transactions."""
    folder = tmp_path_factory.mktemp("half")
    many(folder / "in", 12)
    for n in (40, 80, 120, 160, 200):
        caption(folder / "in", folder / "s", "--unit", "4", "--device", "null", "--limit", n)
    return folder


def test_a_wrong_number_in_the_free_list_is_found_and_nothing_is_written(folder, half_done):
    seed = int(os.environ.get("BLIPLINE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    draw = random.Random(seed)
    print("seed", seed, "(BLIPLINE_TEST_SEED)")
    data = (half_done / "s" / "data.mdb").read_bytes()
    places = free_list_places(data)
    assert places
    store = folder / "s"
    store.mkdir()
    for _ in range(8):
        bad = bytearray(data)
        bad[draw.choice(places)] ^= 1 << draw.randrange(6)
        (store / "data.mdb").write_bytes(bad)
        verify = read("verify", store)
        assert verify.returncode == 1 and b"page" in verify.stdout, verify
        export = read("export", store)
        assert export.returncode == 0 and len(export.stdout.splitlines()) == 200  # its rows are all there
        done = caption(half_done / "in", store, "--device", "null", check=False)
        assert (
            done.returncode == 1 and f"{store}: data.mdb is damaged" in done.stderr and "blipline verify" in done.stderr
        ), done.stderr
        assert (store / "data.mdb").read_bytes() == bad
    (store / "data.mdb").write_bytes(data)
    caption(half_done / "in", store, "--device", "null", "--check")
    assert read("verify", store).returncode == 0


def test_a_broker_does_not_write_to_a_damaged_store(folder, half_done):
    """Also one that another client names than the command, which looks for itself."""
    shutil.copytree(half_done / "s", folder / "s")
    data = bytearray((folder / "s" / "data.mdb").read_bytes())
    data[free_list_places(data)[0]] ^= 1
    (folder / "s" / "data.mdb").write_bytes(data)
    with Cluster(folder) as cluster:
        client = Client(cluster.endpoint)
        client.hello()
        with pytest.raises(Refused, match="data.mdb is damaged"):
            client.open(folder / "s", null_nodes())
        client.open(folder / "other", null_nodes())
        client.close()
        assert cluster.broker.stop() == 0
    assert (folder / "s" / "data.mdb").read_bytes() == data


def test_pages_of_another_time_are_not_exported_as_undone(folder, half_done):
    """An older page in the place of a newer one: what it leads to is whole, and what came since is not there."""
    shutil.copytree(half_done / "s", folder / "s")
    env = lmdb.open(str(folder / "s"), max_dbs=16)
    tables = {name: env.open_db(name, create=False) for name in (b"items", b"units", b"meta")}
    rows = [(b"items", n.to_bytes(8, "big")) for n in range(196, 200)] + [
        (b"units", (49).to_bytes(4, "big")),
        (b"meta", b"counters"),
    ]
    with env.begin() as txn:
        values = [txn.get(key, db=tables[table]) for table, key in rows]
    counters = store_pb2.JobCounters.FromString(values[-1])
    counters.ClearField("crc32")
    counters.n_done, counters.n_units_done = 196, 49
    older = counters.SerializeToString()
    with env.begin(write=True) as txn:
        for table, key in rows[:-1]:
            assert txn.delete(key, db=tables[table])
        txn.put(b"counters", older + b"\x7d" + zlib.crc32(older).to_bytes(4, "little"), db=tables[b"meta"])
    old = (folder / "s" / "data.mdb").read_bytes()
    with env.begin(write=True) as txn:
        for (table, key), value in zip(rows, values):
            assert txn.put(key, value, db=tables[table])
    env.close()
    data = bytearray((folder / "s" / "data.mdb").read_bytes())
    for command in ("verify", "export"):
        assert read(command, folder / "s").returncode == 0, command
    now, was = (struct.unpack_from("<Q", newest_meta(d)[5], 40)[0] * PAGE for d in (data, old))  # the lists of tables
    data[now + 8:now + PAGE] = old[was + 8:was + PAGE]
    (folder / "s" / "data.mdb").write_bytes(data)
    export = read("export", folder / "s")
    assert (
        len(export.stdout.splitlines()) == 196 and export.returncode == 1 and b"data.mdb is damaged" in export.stderr
    ), export.stderr
    assert read("verify", folder / "s").returncode == 1


def test_items_that_lost_their_records_are_not_called_undone(folder, half_done):
    """Rows that are gone, with those that would tell: of the tables that the counters count."""
    shutil.copytree(half_done / "s", folder / "s")
    for item in range(8, 12):
        delete(folder / "s", b"items", item.to_bytes(8, "big"))
    delete(folder / "s", b"units", (2).to_bytes(4, "big"))
    export = read("export", folder / "s")
    assert (
        export.returncode == 1 and b"4 of 200 items that are done have lost their records" in export.stderr
    ), export.stderr
    assert len(export.stdout.splitlines()) == 196
    assert read("stats", folder / "s").returncode == 1 and read("verify", folder / "s").returncode == 1
    done = read("get", folder / "s", "--item", "9")
    assert done.returncode == 1 and b"item 9 has lost its record" in done.stderr, done
