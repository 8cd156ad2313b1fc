"""Recipes, their files and options, and lists with columns, through the command."""

import json
import re
import subprocess

import pytest
from harness import ANSWERS, IMAGES, MODEL, PICTURES, ROOT, blipline, caption, export

SCORER = ROOT / "models" / "blip2-itm-demo"
GOLDEN = ROOT / "tests" / "golden"
RECIPES = sorted(p.stem for p in (ROOT / "ops" / "recipes").glob("*.conf"))
EXAMPLES = ROOT / "examples"


def null(command, source, store, *more, **kwargs):
    return blipline(command, source, "-o", store, "--device", "null", *more, **kwargs)


def plan(*args):
    return json.loads(blipline("caption", *args, "--dry-run", "--json").stdout)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"@{path}"


@pytest.fixture
def rows(folder):
    """A list of all columns that built-in recipes use."""
    return write(
        folder / "rows.jsonl",
        "".join(
            json.dumps({"path": str(p), "caption": "a cat", "question": ["what?", "why?"]}) + "\n" for p in PICTURES
        ),
    )


def test_every_built_in_recipe_runs(folder, rows):
    listed = blipline("help", "recipe").stdout
    for name in RECIPES:
        text = (ROOT / "ops" / "recipes" / f"{name}.conf").read_text()
        assert f"    {name} " in listed and blipline("help", "recipe", name).stdout == text
        null("caption", rows, folder / name, "--recipe", name)
        copy = write(folder / f"{name}.conf", text)[1:]
        assert "nothing to do" in null("caption", rows, folder / name, "--recipe", copy).stderr  # the same recipe


def test_commands_are_found_by_their_names(folder, rows):
    null("score", rows, folder / "s")
    null("embed", IMAGES, folder / "e")
    done = null("score", IMAGES, folder / "n", check=False)
    assert (
        done.returncode == 1
        and 'no columns' in done.stderr
        and '"caption"' in done.stderr
        and not (folder / "n").exists()
    )
    for command in ("caption", "score", "embed"):
        page = blipline("help", command).stdout
        assert "--recipe" in page and "--embed KIND" in page and ("--beams N" in page) == (command == "caption")


def test_mistakes_name_file_and_line_and_do_nothing(folder):
    for text, says in {
        "[caption]\nbeems = 5\n": "line 2: unknown key beems; did you mean beams?",
        "[caption]\nbeams = 99\n": "from 1 to 64",
        '[caption]\nprompt = "a photo\n': "line 2: a quote is not closed: prompt",
        "[captions]\n": "unknown section captions", "[caption]\nsample = yes\nbeams = 4\n": "one beam",
        "": "asks for nothing",
    }.items():
        recipe = write(folder / "mine.conf", text)[1:]
        done = null("caption", IMAGES, folder / "s", "--recipe", recipe, check=False)
        assert done.returncode == 2 and "mine.conf" in done.stderr and says in done.stderr, done.stderr
    done = null("caption", IMAGES, folder / "s", "--recipe", "vqaa", check=False)
    assert done.returncode == 2 and "did you mean vqa" in done.stderr
    done = null("score", IMAGES, folder / "s", "--beams", "5", check=False)
    assert done.returncode == 2 and "--beams" in done.stderr
    done = null("caption", IMAGES, folder / "s", "--recipe", "score", "--beams", "5", check=False)
    assert done.returncode == 2 and "writes no captions" in done.stderr
    bad = b"\xff"
    for options, says in (
        (["--temperature", "0", "--sample"], "above 0"),
        (["--top-p", "0.5"], "without sampling"),
        (["--seed", "1"], "without sampling"),
        (["--length-penalty", "1"], "without beams"),
        (["--early-stopping"], "without beams"),
        (["--score-model", SCORER], "does not use it"),
        (["--prompt", "{"], "{ without }"),
        (["--prompt", bad], "not UTF-8"),
        (["--prompt", ""], "no tokens"),
        (["--max-new-tokens", "65536"], "positions"),
        ([f"--prompt={i}" for i in range(8)] + ["--captions", "32", "--sample"], "256 captions"),
    ):
        done = caption(IMAGES, folder / "s", *options, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    done = blipline("recipe", check=False)
    assert done.returncode == 2 and "blipline help recipe" in done.stderr
    assert not (folder / "s").exists()


def test_options_win_over_the_recipe_and_the_dry_run_shows_it(folder):
    p = plan(
        IMAGES, "-o", folder / "s", "--model", MODEL, "--recipe", "caption-coco", "--beams", "3",
        "--captions", "2", "--prompt", "a", "--question", "b?", "--dtype", "bf16", "--qformer-dtype", "fp32",
    )
    d = p["recipe"]["decode"]
    assert (d["beams"], d["captions"], d["max_new_tokens"], d["min_new_tokens"]) == (3, 2, 30, 8)
    assert p["recipe"]["prompts"] == ["a", "Question: b? Answer:"]
    assert [s["dtype"] for s in p["stages"]] == ["bf16", "fp32", "bf16"] and p["pictures"] == p["new"] == 24
    text = blipline("caption", IMAGES, "-o", folder / "s", "--model", MODEL, "--recipe", "caption-coco",
                    "--dry-run").stdout
    assert "beams = 5" in text and "min-new-tokens = 8" in text and "blip2-opt-demo" in text
    recipe = write(folder / "again.conf", text)[1:]  # what it shows is a recipe
    again = plan(IMAGES, "-o", folder / "s", "--model", MODEL, "--recipe", recipe)
    assert again["recipe"] == plan(IMAGES, "-o", folder / "s", "--model", MODEL, "--recipe", "caption-coco")["recipe"]
    assert not (folder / "s").exists()


def test_trunk_is_shared_exactly_when_it_is_the_same(folder):
    for captioner, needs in (("opt_c", [[], [0], [1], [0, 2]]), ("opt_a", [[], [0], [1], [], [2, 3]])):
        p = plan(IMAGES, "-o", folder / "s", "--model", GOLDEN / captioner, "--score-model", GOLDEN / "itm_c",
                 "--score")
        assert [s["needs"] for s in p["stages"]] == needs
        assert p["stages"][-1]["gives"] == ["score"] and p["stages"][-1]["worker"] == "score-qformer"


def test_another_recipe_is_refused_with_the_difference(folder):
    caption(IMAGES, folder / "s", "--limit", "2")
    for options, says, same in (
        (["--beams", "5"], "beams: 5, was 1", " (--beams=1)"),
        (["--max-new-tokens", "21"], "max-new-tokens: 21, was 20", " (--max-new-tokens=20)"),
        (["--question", "what?"], "prompt 1", ""),
        (["--recipe", "caption-lavis"], 'recipe: "caption-lavis"', " (--recipe=caption)"),
        (["--sample", "--seed", "7"], "seed: 7, was 0", " (--sample=no --seed=0)"),
        (["--embed", "query:fp16"], "embedding query: fp16, was none", ""),
    ):
        done = caption(IMAGES, folder / "s", *options, check=False)
        assert (
            done.returncode == 1
            and f"  {says}" in done.stderr
            and f"\nUse the same{same}, or another -o" in done.stderr
        ), done.stderr
        dry = caption(IMAGES, folder / "s", *options, "--dry-run", check=False)
        assert (
            dry.returncode == 1
            and dry.stderr.split("this store was made")[1] == done.stderr.split("this store was made")[1]
        )
    assert "24 of 24" in caption(IMAGES, folder / "s").stderr


def test_the_options_that_are_named_go_on_with_the_store(folder):
    recipe = write(folder / "mine.conf", "[caption]\nbeams = 2\n")[1:]
    for n, options in enumerate(
        (
            [
                "--recipe", "caption-lavis", "--beams", "3", "--captions", "2", "--prompt",
                "it's \"a\" photo\n of $HOME", "--prompt", "b",
            ],
            [
                "--temperature", "0.7", "--sample", "--seed", "18446744073709551615", "--top-p",
                "0.123456789", "--exif-orientation", "apply",
            ],
            ["--embed", "cls", "--embed", "query:fp16", "--dtype", "bf16"],
            ["--question", "{key}?", "--early-stopping=never", "--beams", "2"],
        )
    ):
        store = folder / f"s{n}"
        null("caption", IMAGES, store, *options, "--limit", "1")
        done = null("caption", IMAGES, store, "--recipe", "nucleus-10", "--dry-run", check=False)
        assert done.returncode == 1, done
        same = re.search(r"Use the same \((.*)\), or another -o", done.stderr, re.S).group(1)
        same = (
            subprocess.run(["bash", "-c", f"printf '%s\\0' {same}"], capture_output=True, check=True)
            .stdout.decode()
            .split("\0")[:-1]
        )
        null("caption", IMAGES, store, *same, "--limit", "1")
    done = null("caption", IMAGES, folder / "s0", "--recipe", recipe, check=False)
    assert "--recipe=caption-lavis" in done.stderr, done.stderr
    null("caption", IMAGES, folder / "m", "--recipe", recipe, "--limit", "1")
    assert "(--recipe=mine.conf)" in null("caption", IMAGES, folder / "m", check=False).stderr


def test_the_dry_run_refuses_what_the_run_refuses(folder):
    (folder / "file").write_text("x")
    (folder / "full").mkdir()
    (folder / "full" / "a.jpg").write_text("x")
    (folder / "empty").mkdir()
    for store, says in (
        ("file", "is a file"),
        ("full", "other files in it (a.jpg)"),
        ("none/s", "No such file"),
        ("file/s", "Not a directory"),
    ):
        for more in ([], ["--dry-run"]):
            done = null("caption", IMAGES, folder / store, *more, check=False)
            assert done.returncode == 1 and says in done.stderr, (more, done.stderr)
    null("caption", IMAGES, folder / "empty", "--dry-run")
    assert not list((folder / "empty").iterdir())


def test_export_refuses_what_has_no_effect(folder, rows):
    null("score", rows, folder / "s")
    null("embed", rows, folder / "e", "--embed", "query", "--unit", "4")
    for store, options, code, says in (
        ("s", ["--best-of", "logprob"], 1, "no log-probabilities"),
        ("e", ["--embedding", "query", "--format", "csv"], 2, "no effect"),
        ("e", ["--embedding", "query", "--min-itm", "0.5"], 2, "no effect"),
        ("e", ["--embedding", "query", "-o", "-"], 2, "-o PATH"),
        ("e", ["--embedding", "query", "-o", "/dev/null"], 1, "a pipe or device"),
        ("e", ["--embedding", "itc", "-o", folder / "x.npy"], 1, "no embeddings"),
    ):
        done = blipline("export", folder / store, *options, check=False)
        assert (
            done.returncode == code
            and says in done.stderr
            and done.stderr.count(str(folder / store)) <= 1
            and not done.stdout
        ), done.stderr
    assert "--unit is for new stores" in null("embed", rows, folder / "e", "--embed", "query", "--unit", "4").stderr


def test_vqa_of_the_example_lists(folder):
    caption(f"@{EXAMPLES}/questions.jsonl", folder / "s", "--recipe", "vqa")
    rows, _ = export(folder / "s")
    got = {r["key"].split("/")[-1]: [c["caption"] for c in r["captions"]] for r in rows}
    right = sum(
        a == b
        for name in got
        for a, b in zip(got[name], [answer for _, _, answer in ANSWERS[name]["vqa"]], strict=True)
    )
    assert right >= 95 and sum(map(len, got.values())) == 96  # beams, where the reference's answers are greedy


def test_bootstrap_prefers_what_fits_the_picture(folder):
    caption(f"@{EXAMPLES}/pairs.csv", folder / "s", "--score-model", SCORER, "--recipe", "bootstrap")
    rows, _ = export(folder / "s")
    given = {r["key"].split("/")[-1]: [c for c in r["captions"] if c.get("given")] for r in rows}
    assert all(len(r["captions"]) == 6 for r in rows) and all(len(g) == 1 for g in given.values())
    wrong = {name for name, (g,) in given.items() if g["caption"] != ANSWERS[name]["truth"]}
    assert len(wrong) == 8 and all(given[name][0]["itm"] < 0.5 for name in wrong)
    best = [
        json.loads(line)
        for line in blipline("export", folder / "s", "--best-of", "itm", "--min-itm", "0.5").stdout.splitlines()
    ]
    assert all(b["itm"] >= 0.5 for b in best) and not any(
        b.get("given") for b in best if b["key"].split("/")[-1] in wrong
    )


def test_lists_of_every_form_say_the_same(folder):
    folder.joinpath("in").symlink_to(IMAGES)
    names = [p.name for p in PICTURES]
    forms = {
        "a.jsonl": "".join(json.dumps({"image": f"in/{n}", "key": n, "q": f'is "it", {i}?'}) + "\n" for i,
                           n in enumerate(names)),
        "b.csv": "\ufeffq,key,path\r\n" + "".join(f'"is ""it"", {i}?",{n},in/{n}\r\n' for i, n in enumerate(names)),
        "c.tsv": "key\tq\tfile_name\textra\n" + "".join(f'{n}\tis "it", {i}?\tin/{n}\t\n' for i, n in enumerate(names)),
    }
    found = []
    for name, text in forms.items():
        caption(write(folder / name, text), folder / f"{name}.s", "--question", "{q}", "--limit", "6")
        found.append(export(folder / f"{name}.s")[1])
    assert found[0] == found[1] == found[2]
    rows = [json.loads(line) for line in found[0].splitlines()]
    assert rows[5]["prompt"] == 'Question: is "it", 5? Answer:' and rows[5]["key"] == names[5]


def test_a_broken_line_is_named_before_any_work(folder):
    good = json.dumps({"path": str(PICTURES[0]), "caption": "x"}) + "\n"
    for name, text, says in (
        ("l.jsonl", good * 6 + good[:-3] + "\n" + good, "line 7"),
        ("l.csv", "path,caption\n" + "a.jpg,x\n" * 5 + 'a.jpg,"x\n' + "a.jpg,x\n" * 9, "line 7"),
        ("l.csv", "path,caption\n" + "a.jpg,x\n" * 5 + 'a.jpg,"x\n' + 'a.jpg,"x"\n' * 9, "line 7"),
    ):
        done = null("score", write(folder / name, text), folder / "s", check=False)
        assert done.returncode == 1 and name in done.stderr and says in done.stderr, done.stderr
        assert not (folder / "s").exists()
    for name, text, says in (
        ("l.csv", "path;caption\na.jpg;x\n", 'there is "path;caption" (columns are separated by commas'),
        ("l.csv", "Path,caption\na.jpg,x\n", 'there is "Path", "caption"'),
        (
            "l.csv",
            "path, caption\na.jpg,x\n",
            'the column "caption" that the recipe needs; there is "path", " caption"',
        ),
        ("l.tsv", "path,caption\na.jpg,x\n", '"path,caption"'),
        ("l.jsonl", '{"Path": "a.jpg"}\n', 'there is "Path"'),
    ):
        done = null("score", write(folder / name, text), folder / "s", check=False)
        assert done.returncode == 1 and says in done.stderr and "JSON_" not in done.stderr, done.stderr
    done = null("caption", write(folder / "l.jsonl", good), folder / "s", "--prompt", "{nope}", check=False)
    assert done.returncode == 1 and '"nope"' in done.stderr and not (folder / "s").exists()


def test_rows_of_one_picture_go_on_by_their_keys_and_changes_are_said(folder):
    def row(key, text):
        return json.dumps({"path": str(PICTURES[0]), "key": key, "caption": text}) + "\n"
    null("score", write(folder / "l.jsonl", row("a", "1") + row("b", "2")), folder / "s")
    done = null("score", write(folder / "l.jsonl", row("new", "0") + row("a", "1") + row("b", "other")), folder / "s")
    assert (
        "3 of 3 items done, 1 in this run" in done.stderr
        and "columns of 1 row changed" in done.stderr
        and "first: b)" in done.stderr
    ), done.stderr
    rows, _ = export(folder / "s")
    assert [r["key"] for r in rows] == ["a", "b", "new"]
