"""The command line itself: exit codes, hints, JSON, help, manual pages, completion, install and uninstall."""
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import make_in
from harness import BUILD, IMAGES, MODEL, ROOT, SLOW, Cluster, blipline, caption

DAEMONS = [f"blipline-{role}" for role in ("broker", "encoder", "qformer", "llm")]


def words_of(heading):
    """The names in a list of `blipline help`."""
    lines = blipline("help").stdout.split(f"\n{heading}:\n")[1].split("\n\n")[0].splitlines()
    return [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]


COMMANDS, TOPICS = words_of("Commands"), words_of("Topics")


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60 * SLOW, check=False,
                          **kwargs)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "a store's"
    caption(IMAGES, path, "--limit", "2")
    return path


# -- wrong command lines --

@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_what_it_does_not_know(command, folder):
    for more in (["--nonsense"], ["--nonsense=3"], ["-Z"]):
        done = blipline(command, *more, check=False, cwd=folder)
        assert (
            done.returncode == 2 and "unknown option" in done.stderr and f"blipline {command} --help" in done.stderr
        ), done
    done = blipline(command, *"abcde", "--", "f", check=False, cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith("blipline: "), done
    done = blipline(command, "--help=yes", check=False, cwd=folder)
    assert done.returncode == 2 and "takes no value" in done.stderr, done
    assert "did you mean --help?" in blipline(command, "--hlep", check=False, cwd=folder).stderr


REQUIRED = {
    "caption": [IMAGES, "-o", "s", "--model", MODEL],
    "score": ["@l.csv", "-o", "s", "--model", MODEL],
    "embed": [IMAGES, "-o", "s", "--model", MODEL, "--embed", "query"],
    "submit": [IMAGES, "--model", MODEL, "--broker", "ipc:///nowhere"],
    "export": ["1"], "get": ["1", "key"], "stats": ["1"], "verify": ["1"], "completion": ["bash"],
}
FREE = {
    "STORE", "DIR", "RECIPE", "TABLE", "FILE", "PATH", "TEXT", "NAME", "NAMES", "DEVICE",
}  # values that can be anything, or are looked for


@pytest.mark.parametrize("command", COMMANDS)
def test_every_value_that_cannot_be_is_a_wrong_command_line(command, folder):
    """Of every option that the help page lists; and nothing is done before."""
    options = re.findall(
        r"^ +(?:-., )?--([a-z0-9-]+)(?: |\[=)([^ \]\n]+)\]?",
        blipline("help", command).stdout.split("\nExamples:")[0],
        re.M,
    )
    assert len(options) >= {"caption": 35, "score": 15, "embed": 15, "submit": 30, "export": 8}.get(command, 0), options
    for name, value in options:
        if value in FREE:
            continue
        done = blipline(command, *REQUIRED.get(command, []), f"--{name}=nonsense!", check=False, cwd=folder)
        assert done.returncode == 2 and f"--{name}" in done.stderr, (name, value, done)
    if command in REQUIRED:
        done = blipline(command, check=False, cwd=folder)
        assert done.returncode == 2 and "is missing" in done.stderr and "\nUsage: blipline" in done.stderr, done
    assert not list(folder.iterdir())


def test_what_is_named_and_not_there_is_a_wrong_command_line(folder, store):
    model = ("--model", MODEL)
    for arguments, says in (
        (["caption", IMAGES, "-o", "s", "--model", "nope"], "--model nope: there is no such folder"),
        (["caption", IMAGES, "-o", "s", "--model", folder / "x"], "no such folder"),
        (["caption", IMAGES, "-o", "s", "--model", ROOT / "README.md"], "is a file"),
        (["caption", IMAGES, "-o", "s", "--model", ""], "no such folder"),
        (["caption", IMAGES, "-o", "s", *model, "--score", "--score-model", "nope"], "--score-model nope"),
        (["score", "@x.csv", "-o", "s", "--model", "nope"], "--model nope"),
        (["embed", IMAGES, "-o", "s", "--model", "nope"], "--model nope"),
        (["caption", "nope", "-o", "s", *model], "nope"),
        (["caption", "@nope.csv", "-o", "s", *model], "nope.csv"),
        (["caption", IMAGES, "-o", "s", *model, "--join", "nope.csv"], "nope.csv"),
        (["caption", IMAGES, "-o", "s", *model, "--recipe", "nope.conf"], "nope.conf"),
        (["caption", IMAGES, "-o", "s", *model, "--recipe", "capton"], "did you mean caption?"),
        (["export", "nope"], "nope"),
        (["stats", "nope/deeper"], "nope"),
        (["verify", ROOT / "README.md"], "README.md"),
        (["get", ROOT, "key"], "not a job store"),
        (["caption", IMAGES, "-o", "s", "--model", IMAGES], "is not a checkpoint"),
        (["caption", IMAGES, "-o", "s", "--model", "blip2-itm-demo"], "does not write captions"),
        (["score", "@x.csv", "-o", "s", *model], "no ITC and ITM heads"),
        (["caption", IMAGES, "-o", "s", *model, "--limit", "0"], "expected 1 or more"),
        (["selftest", "nope"], "nope"),
        (["selftest", MODEL, "--golden", "nope"], "nope"),
        (["help", "nope"], "nope"),
        (["help", "recipe", "vqaa"], "did you mean vqa?"),
        (["completion", "csh"], "bash zsh fish"),
        (["expotr", store], "did you mean export?"),
        (["--hlep"], "did you mean --help?"),
        (["--model", "x"], "after a command"),
    ):
        done = blipline(*arguments, check=False, cwd=folder)
        assert done.returncode == 2 and says in done.stderr, (arguments, done)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemons_have_long_options(daemon, folder):
    program = BUILD / daemon
    for short, name in (("-h", "--help"), ("-V", "--version")):
        assert run(program, short).stdout == run(program, name).stdout != ""
    assert run(program, "--version").stdout.startswith(f"{daemon} ")
    for wrong, says in (
        (["--hlep"], "did you mean --help?"),
        (["-Z"], "unknown option -Z"),
        (["--config"], "needs a value"),
        (["--check=x"], "takes no value"),
        (["x"], "unexpected argument"),
        (["-f"], "needs a value"),
    ):
        done = run(program, *wrong)
        assert done.returncode == 2 and says in done.stderr and not done.stdout, done
    conf = folder / "c.conf"
    conf.write_text("endpiont = ipc:///x\n")
    done = run(program, "--check", "--config", conf)
    assert done.returncode == 78 and "did you mean endpoint?" in done.stderr and not done.stderr.startswith("<"), done
    if daemon != "blipline-broker":
        done = run(program)
        assert done.returncode == 78 and "model is missing" in done.stderr and "-f FILE" in done.stderr, done


def test_hints_can_be_pasted(store, folder):
    """Run what is advised, in a shell, with a path that needs quotes and under the name that the program was called
    by."""
    work = folder / "it's; here"
    work.mkdir()
    program = os.path.relpath(BUILD / "blipline", work)
    (work / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    shutil.copy(IMAGES / "scene_0001.jpg", work / "good.jpg")
    done = run(program, "caption", ".", "-o", "s $HOME `x`", "--model", "blip2-opt-demo", "--device", "cpu", cwd=work)
    assert done.returncode == 3, done
    for begin, end, finds in (
        ("read them with: ", "\n", "pig above a camel"),
        ("failed; `", "` counts the reasons", "failures"),
    ):
        hint = done.stderr.split(begin)[1].split(end)[0]
        if begin.startswith("failed"):
            hint = done.stderr.split(begin)[1].rsplit(end)[0]
        pasted = subprocess.run(["sh", "-c", hint], capture_output=True, text=True, cwd=work, timeout=60, check=True)
        assert finds in pasted.stdout, (hint, pasted)


# -- JSON --

def with_a_broker(folder):
    """What the commands about jobs of a broker answer."""
    with Cluster(folder, state_dir=folder / "state") as cluster:
        def ask(*args, check=True):
            return blipline(*args, "--broker", cluster.endpoint, "--json", check=check,
                            env={**os.environ, "HOME": str(folder)})
        return {
            "submit": ask("submit", IMAGES, "--device", "null"),
            "models": ask("models"),
            "jobs": ask("jobs"),
            "status": ask("status", "1"),
            "control": ask("pause", "1"),
            "watch": ask("watch", "1", check=False),
            "top": ask("top"),
        }


def test_json_says_what_it_is_and_is_documented(store, folder):
    page = blipline("help", "json").stdout
    entries = {}
    for line in page.split("Version 1 has\n\n")[1].split("\n\n")[0].splitlines():
        name = line[2:].split("  ")[0]
        entries[name or last] = entries.get(name or last, "") + " " + line[12:]
        last = name or last
    answers = {
        "stats": blipline("stats", store, "--json"), "verify": blipline("verify", store, "--json"),
        "item": blipline("get", store, "--item", "0", "--json"), "devices": blipline("devices", "--json"),
        "keygen": blipline("keygen", "-o", folder / "key", "--json"),
        "caption": caption(IMAGES, store, "--limit", "2", "--json"),
        "dry-run": caption(IMAGES, store, "--limit", "2", "--json", "--dry-run"),
        **with_a_broker(folder),
        "selftest": blipline("selftest", ROOT / "tests/golden/itm_c", "--images", ROOT / "tests/golden/images_odd",
                             "--json", check=False),
    }
    assert set(answers) == set(entries)
    for name, of in (("watch", "caption"), ("status", "jobs"), ("status", "caption")):
        assert of in entries[name]
        entries[name] += entries[of]
    for schema, done in answers.items():
        answer = json.loads(done.stdout)
        assert list(answer)[:2] == ["schema", "version"] and answer["schema"] == schema and answer["version"] == 1, done
        documented = set(
            entries[schema]
            .replace(",", " ")
            .replace(":", " ")
            .replace("{", " ")
            .replace("}", " ")
            .replace(".", " ")
            .replace(";", " ")
            .split()
        )
        for name in set(answer) - {"schema", "version"} if schema != "item" else ():
            assert name in documented, f"{name} of {schema} is not in blipline help json"


def test_errors_are_json_where_it_is_asked_for(folder, store):
    for code, arguments in (
        (2, ["stats", "--json"]),
        (2, ["stats", "nope", "--json"]),
        (1, ["get", store, "--json", "no such key"]),
        (2, ["verify", "--json", "nope"]),
        (2, ["devices", "--json", "x"]),
        (2, ["selftest", "--json", "nope"]),
        (2, ["caption", IMAGES, "-o", "s", "--json"]),
        (2, ["caption", "--json", "--beems", "3"]),
        (2, ["caption", "nope", "-o", "s", "--model", MODEL, "--json"]),
        (2, ["embed", IMAGES, "-o", "s", "--model", "nope", "--json"]),
        (2, ["score", "--json"]),
        (2, ["export", store, "--json"]),
        (2, ["nonsense", "--json"]),
        (1, ["caption", IMAGES, "-o", "none/s", "--model", MODEL, "--json", "--dry-run"]),
        (1, ["caption", IMAGES, "-o", "none/s", "--model", MODEL, "--json"]),
    ):
        done = blipline(*arguments, check=False, cwd=folder)
        answer = json.loads(done.stdout)
        assert (
            done.returncode == code
            and answer["schema"] == "error"
            and answer["version"] == 1
            and answer["command"] == arguments[0]
        ), done
        assert (
            answer["error"]["exit_code"] == code
            and answer["error"]["message"]
            and answer["error"]["message"].splitlines()[0] in done.stderr
        ), done
    assert not blipline("stats", "nope", check=False, cwd=folder).stdout
    assert (
        "--json"
        not in blipline("caption", IMAGES, "-o", "s", "--model", MODEL, "--dry-run", "--", "--json", check=False,
                        cwd=folder).stdout
    )  # a name, behind --


# -- models by name --

def test_a_model_is_found_by_its_name(installed, folder):
    done = run(
        installed / "bin/blipline", "caption", IMAGES, "-o", "s", "--model", "blip2-opt-demo", "--device",
        "cpu", "--limit", "1", cwd=folder,
    )
    assert done.returncode == 0, done
    done = run(installed / "bin/blipline", "caption", IMAGES, "-o", "t", cwd=folder)
    advised = done.stderr.split("--model blip2-opt-demo")[1].split("(")[1].split(")")[0]
    assert done.returncode == 2 and os.path.samefile(advised, installed / "share/blipline/models/blip2-opt-demo"), done
    done = run(installed / "bin/blipline", "caption", IMAGES, "-o", "t", "--model", "blip2-opt-dmeo", cwd=folder)
    assert (
        done.returncode == 2
        and "did you mean blip2-opt-demo?" in done.stderr
        and str(installed / "share/blipline/models") in done.stderr
    ), done
    (folder / "models/blip2-opt-demo").mkdir(parents=True)  # nearer, and wrong
    done = run(
        installed / "bin/blipline", "caption", IMAGES, "-o", "t", "--model", "blip2-opt-demo", "--device",
        "cpu", cwd=folder,
    )
    assert done.returncode == 2 and "config.json" in done.stderr, done
    done = run(installed / "bin/blipline", "caption", IMAGES, "-o", "t", "--model", "Salesforce/blip2-opt-2.7b",
               cwd=folder)
    assert (
        done.returncode == 2
        and "\n  hf download Salesforce/blip2-opt-2.7b --exclude '*.bin' --local-dir models/blip2-opt-2.7b"
        in done.stderr
    ), done


# -- pages --

def test_pages_fit_a_terminal():
    for arguments in (["help"], *(["help", name] for name in COMMANDS + TOPICS)):
        long = [line for line in blipline(*arguments).stdout.splitlines() if len(line) > 80]
        assert not long, (arguments, long)
    for daemon in DAEMONS:
        assert all(len(line) <= 80 for line in run(BUILD / daemon, "--help").stdout.splitlines())


def test_every_command_topic_and_daemon_has_a_manual_page(installed):
    man = installed / "share/man"
    pages = (
        {f"man1/blipline-{c}.1" for c in COMMANDS}
        | {f"man7/blipline-{t}.7" for t in TOPICS}
        | {f"man8/{d}.8" for d in DAEMONS}
        | {"man1/blipline.1"}
    )
    assert {str(p.relative_to(man)) for p in man.rglob("*.[178]")} == pages
    for option in ("model", "beams", "json", "limit"):
        assert f"\\-\\-{option}" in (man / "man1/blipline-caption.1").read_text()
    assert "window_items" in (man / "man8/blipline-llm.8").read_text().replace("\\-", "-")
    for tool in (["mandoc", "-Tlint"], ["groff", "-man", "-Tutf8", "-ww", "-z"]):
        for page in pages if shutil.which(tool[0]) else ():
            done = run(*tool, man / page)
            assert done.returncode == 0 and not done.stdout + done.stderr, (tool, page, done.stdout, done.stderr)


# -- completion --

BASH = """source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); compopt() { :; }
_blipline; printf '%s\\n' "${COMPREPLY[@]}" """


@pytest.mark.parametrize(
    "line, has",
    [
        (["cap"], {"caption"}),
        (["export", "--for"], {"--format"}),
        (["export", "s", "--format", ""], {"jsonl", "csv", "txt"}),
        (["caption", "--recipe", "cap"], {"caption", "caption-coco", "caption-lavis"}),
        (["help", "so"], {"sources"}),
        (["help", "recipe", "v"], {"vqa"}),
        (["caption", "x", "--min-n"], {"--min-new-tokens"}),
        (["get", "a "], {"a folder"}),
        (["caption", "@a "], {"@a folder"}),
    ],
)
def test_bash_completes(installed, folder, line, has):
    (folder / "a folder").mkdir()
    script = installed / "share/bash-completion/completions/blipline"
    done = run("bash", "-c", BASH, "bash", script, "blipline", *line, cwd=folder)
    assert done.returncode == 0 and not done.stderr and set(done.stdout.splitlines()) == has, done


def test_zsh_and_fish_complete(installed):
    zsh, fish = (
        installed / "share/zsh/site-functions/_blipline",
        installed / "share/fish/vendor_completions.d/blipline.fish",
    )
    for command in COMMANDS:
        assert f"    {command})" in zsh.read_text() and f"-a {command} " in fish.read_text()
    for text in (zsh.read_text(), fish.read_text()):
        assert "min-new-tokens" in text and "jsonl csv txt" in text
    if shutil.which("zsh"):
        assert run("zsh", "-n", zsh).returncode == 0
    if shutil.which("fish"):
        done = run(
            "fish",
            "-c",
            f"source {fish}; complete -C 'blipline export s --format '; complete -C 'blipline caption --see'",
        )
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"jsonl", "csv", "txt", "--seed"}, done


# -- install and uninstall; examples --

def test_uninstall_takes_away_what_install_brought_and_nothing_else(folder):
    make_in(folder, "install")
    mine = folder / "usr/share/blipline/models/mine/config.json"
    mine.parent.mkdir()
    mine.write_text("{}")
    other = folder / "usr/bin/blip"
    other.write_text("")
    make_in(folder, "uninstall")
    assert sorted(p for p in folder.rglob("*") if not p.is_dir()) == sorted([mine, other])
    shutil.rmtree(mine.parent)
    make_in(folder, "uninstall")
    assert not (folder / "usr/share/blipline").exists()


def test_a_reader_that_has_seen_enough_is_no_error_of_the_examples(store):
    python = os.environ.get("PYTHON", "/usr/bin/python3")
    for _ in range(5):  # the pipe's other end is gone before the first line
        done = subprocess.run(
            [
                "bash", "-c", 'set -o pipefail; "$1" "$2" "$3" | true', "bash", python,
                str(ROOT / "examples/read_store.py"), str(store),
            ],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )
        assert not done.stderr and done.returncode in (0, 1), done
    for arguments, says in (([], "read_store.py STORE"), ([store.parent / "none"], "No such file")):
        done = run(python, ROOT / "examples/read_store.py", *arguments, cwd=ROOT)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done
