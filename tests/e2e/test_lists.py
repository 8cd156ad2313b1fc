"""Lists as people have them: what is not used is of no matter, and a row that cannot be used fails alone."""

import json
import os
import shutil
import subprocess

from harness import BUILD, IMAGES, MODEL, PICTURES, blipline, caption, export

ONE = IMAGES / "scene_0001.jpg"


def codes(rows):
    return [row["error"]["code"] if "error" in row else "ok" for row in rows]


def test_values_that_the_recipe_does_not_use_stop_nothing(folder):
    values = ["NaN", "Infinity", "-Infinity", "17293822569102704640", "1" + "0" * 400, "1e400", '"\\udcff"', '"Exif\\u0000\\u0000"',
              '{"a":1,"a":2}', '[{"a":[NaN]}]', '"' + "x" * 2_000_000 + '"']
    lines = [f'{{"path":"{ONE}","question":"what color is the background?","x":{v}}}' for v in values]
    lines.append(f'{{"path":"gone.jpg","path":"{ONE}","question":"what color is the background?"}}')
    lines.append(f'{{"path":"{ONE}","question":"what color\\u0000 is the background?"}}')
    (folder / "l.jsonl").write_text("\n".join(lines) + "\n")
    done = caption(f"@{folder}/l.jsonl", folder / "s", "--recipe", "vqa", check=False)
    assert done.returncode == 3 and "line 13: question holds what no text can" in done.stderr, done.stderr
    rows, _ = export(folder / "s")
    assert codes(rows) == ["ok"] * 12 + ["bad_row"]
    assert len({row["caption"] for row in rows[:12]}) == 1


def test_a_blank_cell_is_one_failed_item(folder):
    (folder / "l.csv").write_text(f"image_path,key,caption\n{ONE},a,x\n,b,y\n{ONE},c,z,too,many\n{ONE},d\nhttps://x.org/y.jpg,e,\n")
    done = caption(f"@{folder}/l.csv", folder / "s", "--device", "cpu", check=False)
    assert done.returncode == 3 and "3 rows of the lists cannot be used" in done.stderr, done.stderr
    rows, _ = export(folder / "s")
    assert [row["key"] for row in rows] == list("abcde")
    assert codes(rows) == ["ok", "no_picture", "bad_row", "ok", "url"]


def test_lists_come_through_pipes_and_with_a_byte_order_mark(folder):
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbf" + str(ONE).encode() + b"\r\n")
    caption(f"@{folder}/b.txt", folder / "b")
    assert codes(export(folder / "b")[0]) == ["ok"]
    command = f"{BUILD}/blipline caption @<(ls *1.jpg) @<(ls *3.jpg | sed 's/.*/{{\"img\": \"&\"}}/') -o {folder}/s --model {MODEL} --device cpu"
    subprocess.run(["bash", "-c", command], cwd=IMAGES, check=True, capture_output=True, timeout=300)
    rows, _ = export(folder / "s")
    assert [row["key"] for row in rows] == sorted(p.name for p in IMAGES.glob("*1.jpg")) + sorted(p.name for p in IMAGES.glob("*3.jpg"))
    assert set(codes(rows)) == {"ok"}


def test_a_folder_that_was_moved_goes_on(folder):
    shutil.copytree(IMAGES, folder / "photos")
    args = ["caption", folder / "photos", "-o", folder / "s", "--model", MODEL, "--device", "null"]
    blipline(*args, "--limit", 9)
    (folder / "photos").rename(folder / "elsewhere")
    (folder / "elsewhere" / "new.jpg").write_bytes(ONE.read_bytes())
    args[1] = folder / "elsewhere"
    done = blipline(*args)
    assert 'is the source "photos"' in done.stderr and f"{len(PICTURES) + 1} of {len(PICTURES) + 1} items done" in done.stderr, done.stderr
    assert "nothing to do" in blipline(*args).stderr
    assert "sound" in blipline("verify", folder / "s").stdout


def test_what_a_walk_passes_over_is_counted_by_kind(folder):
    photos = folder / "photos"
    (photos / "shut").mkdir(parents=True)
    shutil.copy(ONE, photos / "a.jpg")
    for name in (".hidden.jpg", "notes.txt", "a.gif"):
        (photos / name).write_text("x")
    os.mkfifo(photos / "p.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "round.jpg").symlink_to("round.jpg")
    (photos / "up").symlink_to("..")
    want = {"other_names": 2, "hidden": 1, "dangling_links": 1, "looping_links": 1, "linked_folders": 1, "pipes": 1}
    done = blipline("caption", photos, "-o", folder / "s", "--model", MODEL, "--device", "null", "--json")
    assert json.loads(done.stdout)["passed_over"] == want and json.loads(done.stdout)["complete"] is True
    assert "links to nothing 1" in done.stderr, done.stderr
    assert json.loads(blipline("stats", folder / "s", "--json").stdout)["passed_over"] == want
    assert "links to nothing 1" in blipline("stats", folder / "s").stdout
    if os.geteuid() == 0:  # whom no mode keeps out: a path that is too long is a folder that cannot be read as well
        deep = str(photos / "shut")
        fd = os.open(deep, os.O_RDONLY)
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=fd)
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(fd)
        kind = "long_paths"
    else:
        (photos / "shut").chmod(0)
        kind = "unreadable_folders"
    done = blipline("caption", photos, "-o", folder / "s", "--model", MODEL, "--device", "null", "--json", check=False)
    (photos / "shut").chmod(0o755)
    assert done.returncode == 3 and json.loads(done.stdout)["complete"] is False, done.stderr
    assert json.loads(done.stdout)["passed_over"] == {**want, kind: 1}
    subprocess.run(["rm", "-rf", photos / "shut"], check=True)


def test_what_is_no_list_is_told_by_its_name(folder):
    (folder / "b.txt").write_text(f"{ONE}\n")
    for name, content, says in (("a.parquet", b"PAR1\0\0PAR1", "Parquet file"), ("a.zip", b"PK\3\4\0\0", "ZIP archive"),
                                ("a.txt", "a.jpg\n".encode("utf-16"), "iconv -f utf-16"), ("a.gz", b"\x1f\x8b\x08", "zcat")):
        (folder / name).write_bytes(content)
        done = caption(f"@{folder}/{name}", folder / "s", check=False)
        assert done.returncode == 1 and name in done.stderr and says in done.stderr, done.stderr
    subprocess.run(["tar", "-C", folder, "-cf", folder / "a.tar", "b.txt"], check=True)
    for source in (f"@{folder}/a.tar", folder / "a.tar"):
        done = caption(source, folder / "s", check=False)
        assert done.returncode == 1 and "tar -xf" in done.stderr, done.stderr
    for source in ("@https://example.org/list.csv", "https://example.org/a.jpg", f"@{ONE}"):
        done = caption(source, folder / "s", check=False)
        assert done.returncode in (1, 2) and ("download" in done.stderr or "without the @" in done.stderr), done.stderr
    (folder / "u.csv").write_text("url,caption\nhttps://example.org/a.jpg,x\nhttps://example.org/b.jpg,y\n")
    done = caption(f"@{folder}/u.csv", folder / "s", check=False)
    assert done.returncode == 1 and "download" in done.stderr, done.stderr
    (folder / "c.csv").write_text(f"my picture,caption\n{ONE},x\n")
    done = caption(f"@{folder}/c.csv", folder / "s", check=False)
    assert done.returncode == 1 and "--image-column" in done.stderr and '"my picture"' in done.stderr, done.stderr
    assert not (folder / "s").exists()
    caption(f"@{folder}/c.csv", folder / "s", "--image-column", "my picture")
    assert codes(export(folder / "s")[0]) == ["ok"]
