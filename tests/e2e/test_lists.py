"""Lists as people have them: what is not used is of no matter, and a row that cannot be used fails alone."""

import csv
import io
import json
import os
import random
import shutil
import subprocess

import pytest

from harness import BUILD, IMAGES, MODEL, PICTURES, blipline, caption, export

ONE = IMAGES / "scene_0001.jpg"


def codes(rows):
    return [row["error"]["code"] if "error" in row else "ok" for row in rows]


def test_values_that_the_recipe_does_not_use_stop_nothing(folder):
    values = [
        "NaN", "Infinity", "-Infinity", "17293822569102704640", "1" + "0" * 400, "1e400", '"\\udcff"',
        '"Exif\\u0000\\u0000"', '{"a":1,"a":2}', '[{"a":[NaN]}]', '"' + "x" * 2_000_000 + '"',
    ]
    lines = [f'{{"path":"{ONE}","question":"what color is the background?","x":{v}}}' for v in values]
    lines.append(f'{{"path":"gone.jpg","path":"{ONE}","question":"what color is the background?"}}')
    lines.append(f'{{"path":"{ONE}","question":"what color\\u0000 is the background?"}}')
    (folder / "l.jsonl").write_text("\n".join(lines) + "\n")
    done = caption(f"@{folder}/l.jsonl", folder / "s", "--recipe", "vqa", check=False)
    assert done.returncode == 3 and "line 13: question contains an invalid character" in done.stderr, done.stderr
    rows, _ = export(folder / "s")
    assert codes(rows) == ["ok"] * 12 + ["bad_row"]
    assert len({row["caption"] for row in rows[:12]}) == 1


def test_a_blank_cell_is_one_failed_item(folder):
    (folder / "l.csv").write_text(
        f"image_path,key,caption\n{ONE},a,x\n,b,y\n{ONE},c,z,too,many\n{ONE},d\nhttps://x.org/y.jpg,e,\n"
    )
    done = caption(f"@{folder}/l.csv", folder / "s", "--device", "cpu", check=False)
    assert done.returncode == 3 and "3 rows of the lists cannot be used" in done.stderr, done.stderr
    rows, _ = export(folder / "s")
    assert [row["key"] for row in rows] == list("abcde")
    assert codes(rows) == ["ok", "no_picture", "bad_row", "ok", "url"]
    again = caption(f"@{folder}/l.csv", folder / "s", "--device", "cpu", check=False)
    assert "nothing to do" in again.stderr, again.stderr
    (folder / "l.csv").write_text(
        (folder / "l.csv").read_text().replace("\n,b,y", f"\n{ONE},b,y")
    )  # a list that is mended goes on
    caption(f"@{folder}/l.csv", folder / "s", "--device", "cpu", check=False)
    assert codes(export(folder / "s")[0]) == ["ok", "ok", "bad_row", "ok", "url"]


def test_lists_come_through_pipes_and_with_a_byte_order_mark(folder):
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbf" + str(ONE).encode() + b"\r\n")
    caption(f"@{folder}/b.txt", folder / "b")
    assert codes(export(folder / "b")[0]) == ["ok"]
    command = (
        f"{BUILD}/blipline caption @<(ls *1.jpg) @<(ls *3.jpg | sed 's/.*/{{\"img\": \"&\"}}/') -o {folder}/s --model"
        f" {MODEL} --device cpu"
    )
    subprocess.run(["bash", "-c", command], cwd=IMAGES, check=True, capture_output=True, timeout=300)
    rows, _ = export(folder / "s")
    assert [row["key"] for row in rows] == sorted(p.name for p in IMAGES.glob("*1.jpg")) + sorted(
        p.name for p in IMAGES.glob("*3.jpg")
    )
    assert set(codes(rows)) == {"ok"}


def test_a_folder_that_was_moved_goes_on(folder):
    shutil.copytree(IMAGES, folder / "photos")
    args = ["caption", folder / "photos", "-o", folder / "s", "--model", MODEL, "--device", "null"]
    blipline(*args, "--limit", 9)
    (folder / "photos").rename(folder / "elsewhere")
    (folder / "elsewhere" / "new.jpg").write_bytes(ONE.read_bytes())
    args[1] = folder / "elsewhere"
    done = blipline(*args)
    assert (
        'is the source "photos"' in done.stderr
        and f"{len(PICTURES) + 1} of {len(PICTURES) + 1} items done" in done.stderr
    ), done.stderr
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
    assert "dangling links 1" in done.stderr, done.stderr
    assert json.loads(blipline("stats", folder / "s", "--json").stdout)["passed_over"] == want
    assert "dangling links 1" in blipline("stats", folder / "s").stdout
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
    for name, content, says in (
        ("a.parquet", b"PAR1\0\0PAR1", "Parquet file"),
        ("a.zip", b"PK\3\4\0\0", "ZIP archive"),
        ("a.txt", "a.jpg\n".encode("utf-16"), "iconv -f utf-16"),
        ("a.gz", b"\x1f\x8b\x08", "zcat"),
    ):
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


def test_fields_are_kept_when_asked_for_and_exported(folder):
    text = (
        json.dumps(
            {
                "path": str(ONE), "key": "k", "url": "https://x.org/é.jpg", "n": 17, "tags": ["a", "b,c"],
                "deep": {"x": 1},
            }
        )
        + "\n"
    )
    (folder / "l.jsonl").write_text(text + json.dumps({"path": str(ONE), "key": "l", "url": float("nan")}) + "\n")
    args = ["caption", f"@{folder}/l.jsonl", "-o", folder / "s", "--model", MODEL, "--device", "null"]
    done = blipline(*args, "--fields", "path,url,tags,deep,n")
    assert "--fields" in done.stderr and "left out" in done.stderr, done.stderr
    rows = [
        json.loads(line)
        for line in blipline("export", folder / "s", "--fields",
                             "path,size,mtime,source,url,tags,n,deep").stdout.splitlines()
    ]
    assert rows[0]["path"] == str(ONE) and rows[0]["size"] == ONE.stat().st_size and rows[0]["source"] == "l.jsonl"
    assert rows[0]["mtime"].endswith("Z") and rows[0]["mtime"][:4].isdigit()
    assert (
        rows[0]["url"] == "https://x.org/é.jpg"
        and rows[0]["tags"] == ["a", "b,c"]
        and rows[0]["n"] == "17"
        and rows[0]["deep"] is None
    )
    assert rows[1]["url"] is None and "source" not in json.loads(
        blipline("export", folder / "s").stdout.splitlines()[0]
    )
    table = list(
        csv.DictReader(io.StringIO(blipline("export", folder / "s", "--format", "csv", "--fields", "url,tags").stdout))
    )
    assert table[0]["url"] == rows[0]["url"] and json.loads(table[0]["tags"]) == ["a", "b,c"] and table[1]["url"] == ""
    assert "nothing to do" in (again := blipline(*args)).stderr and "changed" not in again.stderr, again.stderr
    assert "does not keep more" in blipline(*args, "--fields", "url,more").stderr
    for fields, says in (("nope", "nope"), ("caption", "caption")):
        done = blipline("export", folder / "s", "--fields", fields, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr


def test_keys_that_collide_are_told_apart(folder):
    for name, picture in (("tr", PICTURES[1]), ("va", PICTURES[2])):
        (folder / name).mkdir()
        shutil.copy(picture, folder / name / "1.jpg")
    for sources, store in (((folder / "tr", folder / "va"), "a"), ((folder / "tr/1.jpg", folder / "va/1.jpg"), "b"),
                           ((f"train={folder}/tr", f"val={folder}/va"), "c")):
        caption(sources, folder / store)
        rows = export(folder / store)[0]
        assert [(row["source"], row["key"]) for row in rows] == [
            ("train" if store == "c" else "tr", "1.jpg"),
            ("val" if store == "c" else "va", "1.jpg"),
        ]
        assert rows[0]["caption"] != rows[1]["caption"]
    assert "nothing to do" in caption([folder / "va", folder / "tr"], folder / "a").stderr


def test_json_lines_are_read_as_python_reads_them(folder):
    """Made rows, right and wrong: the same values as Python's json module, or refused as it refuses."""
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    scalars = [
        "NaN", "Infinity", "-Infinity", "null", "true", "false", "0", "-0", "1.50", "-1.25e-3", "1e400",
        "12345678901234567890123", "17293822569102704640", '"\\u0000"', '"\\udcff"', '"\\ud83d"',
        '"\\ud83d\\ude00"',
        '"a\\\\\\"NaN\\" {"',
        '"\\u00e9é"', '""', '"\\/"', '"\\ud83dx"', '"\\\\u0000"',
    ]

    def value(depth):
        kind = rng.random()
        if depth == 0 or kind < 0.6:
            return rng.choice(scalars)
        if kind < 0.8:
            return "[" + rng.choice([",", " , "]).join(value(depth - 1) for _ in range(rng.randrange(4))) + "]"
        return "{" + ",".join(f'"{rng.choice("abx")}": {value(depth - 1)}' for _ in range(rng.randrange(4))) + "}"

    good, bad = [], []
    while len(good) < 300 or len(bad) < 40:
        members = [f'"path": "{ONE}"'] + [
            f'"{rng.choice(["x", "x", "y", "z", "x" + chr(92) + "u0000"])}":{value(3)}' for _ in range(rng.randrange(5))
        ]
        rng.shuffle(members)
        line = rng.choice(["", " ", "\t"]) + "{" + rng.choice([",", ", "]).join(members) + "}" + rng.choice(["", " "])
        if rng.random() < 0.15:
            at = rng.randrange(1, len(line))
            line = rng.choice(
                [line[:at], line[:at] + rng.choice('"{}[]:,\\Nx0-.') + line[at:], line[:at] + line[at + 1 :]]
            )
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            if len(bad) < 40 and line.strip():
                bad.append(line)
            continue
        if isinstance(row, dict) and row.get("path") == str(ONE) and line.strip():
            good.append((line, row))
    lines = "\n".join(line for line, _ in good) + "\n"
    (folder / "good.jsonl").write_text(lines)
    blipline("caption", f"@{folder}/good.jsonl", "-o", folder / "s", "--model", MODEL, "--device", "null", "--fields",
             "x,y")
    exported = blipline("export", folder / "s", "--fields", "x,y").stdout.splitlines()
    assert len(exported) == len(good)
    for line, (text, row) in zip(exported, good):
        got = json.loads(line)
        for name in "xy":
            assert got[name] == as_kept(row.get(name)), (seed, text, name, got[name])
    for line in bad:
        (folder / "bad.jsonl").write_text(line + "\n")
        done = blipline(
            "caption", f"@{folder}/bad.jsonl", "-o", folder / "t", "--model", MODEL, "--device", "null",
            "--dry-run", check=False,
        )
        assert done.returncode == 1 and "line 1" in done.stderr, (seed, line, done.stderr)


@pytest.mark.parametrize("name, delimiter", [("made.csv", ","), ("made.tsv", "\t")])
def test_csv_is_read_as_python_reads_it(folder, name, delimiter):
    """Made rows, with quotes wherever they may and may not be: the same cells as Python's csv module."""
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    pieces = ['"', '"', '"', '""', delimiter, delimiter, "a", " ", "é", "'", "\\", ",", "\t", "\n", "\r\n"]
    lines, rows = [], []
    while len(rows) < 400:
        line = f"{ONE}{delimiter}{''.join(rng.choice(pieces) for _ in range(rng.randrange(12)))}" + rng.choice(
            ["\n", "\r\n"]
        )
        # text behind the closing quote of a cell of several lines is refused here: that quote may be another cell's
        try:
            read = list(
                csv.reader(io.StringIO(line + "end", newline=""), delimiter=delimiter, strict="\n" in line[:-2])
            )
        except csv.Error:
            continue
        if len(read) == 2:
            lines.append(line)
            rows.append(read[0])
    (folder / name).write_bytes((delimiter.join(["path", "x", "y"]) + "\n" + "".join(lines)).encode())
    blipline(
        "caption", f"@{folder / name}", "-o", folder / "s", "--model", MODEL, "--device", "null", "--fields",
        "x,y", check=False,
    )
    exported = blipline("export", folder / "s", "--fields", "x,y").stdout.splitlines()
    assert len(exported) == len(rows), seed
    for line, text, row in zip(map(json.loads, exported), lines, rows):
        if any(row[3:]):
            assert line["error"]["code"] == "bad_row", (seed, text, row, line)
        else:
            assert [line["x"], line["y"]] == [cell or None for cell in (row[1:3] + ["", ""])[:2]], (
                seed, text, row, line,
            )


def as_kept(value):
    """What the store keeps of a value of Python's: text, numbers by their value, lists of such."""
    if isinstance(value, list):
        if any(isinstance(v, (list, dict)) for v in value):
            return None
        texts = [as_kept(v) for v in value if v is not None]
        if any(t is None for t in texts):
            return None
        return None if not texts else texts[0] if len(texts) == 1 else texts
    if isinstance(value, dict) or value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return None if "\0" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value) else value
    return Number(value)


class Number:
    """Equal to every text that Python reads as this number."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, text):
        return isinstance(text, str) and json.loads(text) == self.value

    def __repr__(self):
        return repr(self.value)
