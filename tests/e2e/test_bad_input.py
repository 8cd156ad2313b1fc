"""Bad pictures, odd names, stores that are not what they should be: a clear reason for each, and nothing else is lost.
"""

import base64
import os
import pathlib
import shutil
import struct
import subprocess
import zlib

import pytest
from harness import ANSWERS, BUILD, IMAGES, MODEL, PICTURES, Caption, blipline, caption, export, many


def bomb_png():
    """A header that promises 60000 x 60000 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def one_pixel_png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + chunk(b"IEND", b"")
    )


def test_each_bad_picture_fails_alone_with_its_reason(folder):
    source = folder / "in"
    source.mkdir()
    good = PICTURES[1].read_bytes()
    wanted = {
        "a_empty.jpg": (b"", "empty"),
        "b_truncated.jpg": (good[:2000], "truncated"),
        "c_random.jpg": (bytes((i * 7919 + 13) % 251 for i in range(4000)), "unknown_format"),
        "d_text.jpg": (b"not a picture\n" * 10, "unknown_format"),
        "e_bomb.png": (bomb_png(), "too_many_pixels"), "f_head.jpg": (good[:3], None),
        "g_webp.webp": (PICTURES[0].read_bytes()[:200], None),
    }
    for name, (data, _) in wanted.items():
        (source / name).write_bytes(data)
    (source / "h_1x1.png").write_bytes(one_pixel_png())
    (source / "i_good.jpg").write_bytes(good)
    done = caption(source, folder / "s", check=False)
    assert done.returncode == 3, done.stderr
    rows, _ = export(folder / "s")
    by_key = {r["key"]: r for r in rows}
    assert len(rows) == len(wanted) + 2
    for name, (_, code) in wanted.items():
        assert "caption" not in by_key[name]
        assert set(by_key[name]["error"]) == {"code", "message"}
        if code:
            assert by_key[name]["error"]["code"] == code, by_key[name]
    assert by_key["h_1x1.png"]["caption"]
    assert by_key["i_good.jpg"]["caption"] == ANSWERS[PICTURES[1].name]["greedy"]


def test_unreadable_and_vanished_files(folder):
    listing = folder / "list.txt"
    fifo = folder / "fifo.jpg"
    os.mkfifo(fifo)
    listing.write_text(f"{folder}/gone.jpg\n{folder}\n{fifo}\n{PICTURES[0]}\n")
    done = caption(f"@{listing}", folder / "s", check=False)
    assert done.returncode == 3, done.stderr
    rows, _ = export(folder / "s")
    assert rows[0]["error"]["code"] == "missing"
    assert rows[1]["error"]["code"] == "unreadable" and rows[2]["error"]["code"] == "unreadable"
    assert rows[3]["caption"] == ANSWERS[PICTURES[0].name]["greedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_mode_000_is_an_item_error(folder):
    source = folder / "in"
    source.mkdir()
    shutil.copy(PICTURES[0], source / "a.webp")
    shutil.copy(PICTURES[1], source / "b.jpg")
    os.chmod(source / "b.jpg", 0)
    for path in (folder, source):
        os.chmod(path, 0o777)

    def other_user():
        os.setgid(65534)
        os.setuid(65534)
    readable = (
        subprocess.run(["test", "-x", str(BUILD / "blipline")], check=False, preexec_fn=other_user).returncode == 0
    )
    if not readable:
        pytest.skip("the build folder is closed to other users")
    done = caption(
        source, folder / "s", check=False, preexec_fn=other_user,
        env={**os.environ, "TMPDIR": str(folder), "HOME": str(folder)},
    )
    assert done.returncode == 3, done.stderr
    rows, _ = export(folder / "s")
    assert rows[0]["caption"] == ANSWERS[PICTURES[0].name]["greedy"] and rows[1]["error"]["code"] == "unreadable"


def test_file_gone_by_the_time_it_is_read(folder):
    source = many(folder / "in", 6)
    run = Caption(source, folder / "s", "--unit", "4")
    try:
        run.at_least(4)
        victim = sorted(p.name for p in source.iterdir())[-1]
        (source / victim).unlink()
        code, _, err = run.end()
    finally:
        run.kill()
    assert code == 3, err
    rows, _ = export(folder / "s")
    assert [r["key"] for r in rows if "error" in r] == [victim]
    assert rows[-1]["error"]["code"] == "missing"


def test_names_of_any_bytes_and_long_paths(folder):
    source = os.fsencode(folder / "in")
    deep = source
    os.mkdir(source)
    cwd = os.open(source, os.O_RDONLY)
    here = os.getcwd()
    try:
        os.fchdir(cwd)
        for _ in range(22):  # about 4000 bytes deep, made step by step
            os.mkdir(b"d" * 180)
            os.chdir(b"d" * 180)
            deep += b"/" + b"d" * 180
        shutil.copy(PICTURES[0], b"x.webp")
    finally:
        os.chdir(here)
        os.close(cwd)
    names = [b"new\nline.jpg", b"bad\xff\xfeutf8.jpg", "ünï ☃ 'quote\".jpg".encode(), b"tab\tname.jpg"]
    for n in names:
        with open(source + b"/" + n, "wb") as f:
            f.write(PICTURES[1].read_bytes())
    caption(os.fsdecode(source), folder / "s")
    rows, text = export(folder / "s")
    keys = {base64.b64decode(r["key_base64"]) if "key_base64" in r else r["key"].encode() for r in rows}
    assert keys == {*names, (deep[len(source) + 1:] + b"/x.webp")}
    assert {r["caption"] for r in rows} == {ANSWERS[PICTURES[0].name]["greedy"], ANSWERS[PICTURES[1].name]["greedy"]}
    assert len(text.splitlines()) == len(rows) == 5
    assert len(blipline("export", folder / "s", "--format", "txt").stdout.splitlines()) == 5


def test_a_store_that_is_not_one(folder):
    (folder / "file").write_text("hello")
    (folder / "dir").mkdir()
    (folder / "dir" / "mine.txt").write_text("do not touch")
    for bad in ("file", "dir"):
        done = caption(IMAGES, folder / bad, check=False)
        assert done.returncode == 1 and str(folder / bad) in done.stderr, done.stderr
    assert (folder / "file").read_text() == "hello" and [p.name for p in (folder / "dir").iterdir()] == ["mine.txt"]
    for command in ("export", "stats", "verify"):
        done = blipline(command, folder / "nothing", check=False)
        assert done.returncode == 2 and "nothing" in done.stderr


def test_a_worker_asked_to_check_looks_at_its_model(folder):
    conf = folder / "w.conf"
    for model, code, says in ((MODEL, 0, ""), (folder / "none", 78, "none/config.json: is missing"), ("", 0, "")):
        conf.write_text(f"model = {model}\n")
        done = subprocess.run(
            [str(BUILD / "blipline-llm"), "-n", "-f", str(conf)],
            capture_output=True, text=True, timeout=60, check=False,
        )
        assert done.returncode == code and says in done.stderr, done


def test_what_no_worker_could_start_with_is_one_error_before_there_is_a_store(folder):
    bad = folder / "bad"
    shutil.copytree(MODEL, bad)
    shard = bad / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    cases = [
        (["--model", bad], {}, 1, "model-00002"),
        (["--model", MODEL, "--dtype", "bf16", "--cpu-isa", "base"], {}, 2, "--dtype fp32"),
        (["--model", MODEL, "--device", "cuda:0", "--cuda-library", folder / "none.so"], {}, 1, "none.so"),
    ]
    if "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text():
        cases.append(
            (["--model", MODEL, "--dtype", "bf16"], {"DNNL_MAX_CPU_ISA": "AVX2"}, 1, "BF16")
        )  # as only a worker knows
    for arguments, environment, code, says in cases:
        done = blipline("caption", IMAGES, "-o", folder / "s", *arguments, check=False,
                        env={**os.environ, **environment})
        assert done.returncode == code and says in done.stderr, done.stderr
        assert (
            "starting another one" not in done.stderr
            and len(done.stderr.splitlines()) == 1
            and not (folder / "s").exists()
        ), done.stderr


def test_a_store_that_is_truncated_or_of_another_version(folder):
    caption(IMAGES, folder / "s", "--limit", "4")
    shutil.copytree(folder / "s", folder / "t")
    data = folder / "t" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    for arguments in (["export", folder / "t"], ["verify", folder / "t"], ["stats", folder / "t"]):
        done = blipline(*arguments, check=False)
        assert done.returncode == 1 and "truncated" in done.stderr, done.stderr
    done = caption(IMAGES, folder / "t", check=False)
    assert done.returncode == 1 and "truncated" in done.stderr, done.stderr
    import lmdb
    from proto import store_pb2
    env = lmdb.open(str(folder / "s"), max_dbs=16)
    with env.begin(write=True) as txn:
        db = env.open_db(b"meta", txn)
        meta = store_pb2.JobMeta.FromString(txn.get(b"job", db=db))
        meta.schema_version, meta.crc32 = 77, 0
        body = meta.SerializeToString()
        txn.put(b"job", body + b"\x7d" + struct.pack("<I", zlib.crc32(body)), db=db)
    env.close()
    for arguments in (["export", folder / "s"], ["stats", folder / "s"]):
        done = blipline(*arguments, check=False)
        assert done.returncode == 1 and "77" in done.stderr, done.stderr
    done = caption(IMAGES, folder / "s", check=False)
    assert done.returncode == 1 and "77" in done.stderr, done.stderr


def test_a_flipped_bit_is_found_and_never_exported(folder):
    caption(IMAGES, folder / "s")
    data = bytearray((folder / "s" / "data.mdb").read_bytes())
    victim = ANSWERS["scene_0007.jpg"]["greedy"].encode()
    places = [i for i in range(len(data)) if data.startswith(victim, i)]
    assert places
    for place in places:
        data[place] ^= 0x01
    (folder / "s" / "data.mdb").write_bytes(data)
    done = blipline("verify", folder / "s", check=False)
    assert done.returncode == 1 and "item 7" in done.stdout + done.stderr
    done = blipline("export", folder / "s", check=False)
    assert done.returncode == 1 and "7" in done.stderr
    done = caption(IMAGES, folder / "s")  # the picture is still there
    assert "1 record of" in done.stderr and "done again" in done.stderr, done.stderr
    assert "sound" in blipline("verify", folder / "s").stdout
    assert export(folder / "s")[0][7]["caption"] == ANSWERS["scene_0007.jpg"]["greedy"]


def test_a_store_in_use_is_refused(folder):
    run = Caption(many(folder / "in", 4), folder / "s", "--unit", "4", "--threads", "2")
    try:
        run.at_least(4)
        done = caption(IMAGES, folder / "s", check=False)
        assert done.returncode == 1 and "in use" in done.stderr, done.stderr
        rows, _ = export(folder / "s")  # readers are welcome
        assert rows
        assert run.end()[0] == 0
    finally:
        run.kill()


def test_broken_lists_and_empty_sources(folder):
    (folder / "empty").mkdir()
    done = caption(folder / "empty", folder / "s", check=False)
    assert done.returncode != 0 and "no pictures" in done.stderr.lower(), done.stderr
    done = caption(folder / "missing", folder / "s", check=False)
    assert done.returncode == 2 and "missing" in done.stderr
    done = caption(f"@{folder}/none.txt", folder / "s", check=False)
    assert done.returncode == 2 and "none.txt" in done.stderr
    assert not (folder / "s").exists()


def test_prompts_that_cannot_be_done_are_refused_before_any_work(folder):
    done = caption(IMAGES, folder / "s", "--prompt", "word " * 200, check=False)
    assert done.returncode != 0 and "position" in done.stderr and not (folder / "s").exists(), done.stderr
    done = caption(IMAGES, folder / "s", "--prompt", os.fsdecode(b"\xff\xfe"), check=False)
    assert done.returncode != 0 and "UTF-8" in done.stderr, done.stderr
    done = caption(IMAGES, folder / "s", "--prompt", "a <image> of", check=False)
    assert done.returncode != 0 and "image token" in done.stderr, done.stderr
    done = caption(IMAGES, folder / "s", "--max-new-tokens", "100000", check=False)
    assert done.returncode != 0, done.stderr


def test_checkpoints_with_something_wrong_are_refused_by_name(folder):
    from harness import MODEL
    model = folder / "m"
    shutil.copytree(MODEL, model)
    (model / "model-00002-of-00002.safetensors").unlink()
    done = blipline("caption", IMAGES, "-o", folder / "s", "--model", model, check=False)
    assert done.returncode == 1 and "model-00002-of-00002.safetensors" in done.stderr, done.stderr
    done = blipline("caption", IMAGES, "-o", folder / "s", "--model", folder / "none", check=False)
    assert done.returncode == 2 and "none" in done.stderr
    assert not (folder / "s").exists()
