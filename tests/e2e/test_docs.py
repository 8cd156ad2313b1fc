"""README.md, CONTRIBUTING.md and docs/: every command is run and its output compared, every path exists.

A fence ```console holds commands (lines that begin with "$ ", continued after a backslash) and what they print. In the
output

    ...     alone on a line stands for any lines, at the end of a line for the rest of the line
    1.0 s   a number before a unit of time, rate or share may be another one; so may a date
    0.8974  other fractions may differ in the fourth digit

A fence ```console not-run: REASON is not run here, nor is ```console on HOST (test_cluster_page.py runs it). Other
fences (text, ini, c) are only shown.
"""
import math
import os
import re
import shutil
import subprocess

import pytest

from harness import BUILD, ROOT, SLOW

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"
VARIES = re.compile(
    rf"({NUMBER})( ?(?:s|ms|%|img/s|pictures a second)(?![a-z0-9/]))|\d{{4}}-\d\d-\d\d(?: \d\d:\d\d:\d\d)?"
)
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """(language, remark, lines) of each fence."""
    return [(m.group(1), m.group(2).strip(), m.group(3).splitlines()) for m in FENCE.finditer(page.read_text())]


def commands(lines):
    """[command, lines that it prints] of a console fence."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1][0] = found[-1][0][:-1] + line.strip()
        else:
            found[-1][1].append(line)
    return found


def parts(line):
    """The line as text and numbers, without what may differ."""
    return re.findall(rf"{NUMBER}|[^\d]+", re.sub(r" +", " ", VARIES.sub(r"\g<2>", line)))


def same(shown, printed):
    shown, printed = parts(shown), parts(printed)
    if shown and shown[-1].endswith(" ..."):
        shown[-1] = shown[-1][:-4]
        printed = printed[:len(shown) - 1] + [p[:len(shown[-1])] for p in printed[len(shown) - 1:len(shown)]]
    return len(shown) == len(printed) and all(
        a == b
        or (
            "." in a
            and "." in b
            and a[0].isdigit()
            and b[0].isdigit()
            and math.isclose(float(a), float(b), rel_tol=1e-3)
        )
        for a, b in zip(shown, printed)
    )


def prints(shown, printed):
    """Do the lines that are shown match those that were printed?"""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(prints(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and same(shown[0], printed[0]) and prints(shown[1:], printed[1:])


@pytest.mark.parametrize(
    "shown, printed, equal",
    [
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "b", "c"], False),
        (["a"], ["a", "b"], False),
        (["in 0.8 s (28 %)"], ["in 12 s ( 3 %)"], True),
        (["24 items in 0.8 s"], ["23 items in 0.8 s"], False),
        (["itc 0.8974"], ["itc 0.8975"], True),
        (["itc 0.8974"], ["itc 0.8874"], False),
        (["{1, 2, ..."], ["{1, 2, 3}"], True),
        (["{1, 2, ..."], ["{1, 3, 3}"], False),
        (["..."], [], True),
    ],
)
def test_shown_output_is_compared(shown, printed, equal):
    assert prints(shown, printed) == equal


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_prints_what_is_shown(page, folder):
    """In order, for somebody who has a clone with a build and nothing else, and no GPU."""
    for path in ROOT.iterdir():
        if path.name not in ("build", ".git") and not path.name.endswith((".lmdb", ".emb", ".npy")):
            (folder / path.name).symlink_to(path)
    (folder / "build").symlink_to(BUILD)
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "T", "O", "SAN", "COV", "PYTHONPATH")
    }
    env.update(HOME=str(folder / "home"), CUDA="0", CUDA_VISIBLE_DEVICES="", TERM="dumb")
    exports = ""
    for language, remark, lines in blocks(page):
        assert language in ("console", "text", "ini", "c"), f"a fence of {language or 'no language'}"
        assert not remark or re.match("not-run: .|on .", remark)
        if language != "console" or remark:
            continue
        for command, shown in commands(lines):
            if command.startswith("export "):
                exports += command + "\n"
                continue
            if re.search(r"\bjq\b", command) and not shutil.which("jq"):
                continue
            done = subprocess.run(
                ["bash", "-c", exports + command],
                capture_output=True, text=True, cwd=folder, env=env, timeout=120 * SLOW, check=False,
            )
            printed = (done.stdout + done.stderr).splitlines()
            assert done.returncode == 0, (command, done)
            assert not shown or prints(shown, printed), "\n".join(
                [f"$ {command}", "shown:", *shown, "printed:", *printed]
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:[a-z_0-9]+/)+[A-Za-z_0-9.*-]*)`", text):
        if path.split("/")[0] not in ("photos", "build"):
            assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_exist(page):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text()):
        headings = re.findall(r"^#+ (.*)$", (page.parent / link if link else page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, f"{link}#{anchor}"


def test_lines_fit_a_terminal():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
    for page in PAGES:
        in_fence = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            in_fence ^= line.startswith("```")
            assert in_fence or line.startswith("|") or len(line) <= 110, f"{page.name}:{number}"
