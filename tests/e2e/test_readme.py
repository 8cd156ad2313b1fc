"""README.md: every command in it works, in its order, for somebody who has a clone and nothing else."""
import re
import shutil
import subprocess

from harness import BUILD, ROOT, SLOW

# what needs a GPU, and what other tests run and takes long
ELSEWHERE = re.compile(r"cuda:|selftest$")


def commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    return [line[4:] for line in lines if line.startswith("    build/blipline ")]


def test_every_command_works_in_order(folder):
    for name in ("examples", "models", "ops", "tests", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "build").symlink_to(BUILD)
    assert len(commands()) > 15
    for command in commands():
        if ELSEWHERE.search(command) or ("| jq" in command and not shutil.which("jq")):
            continue
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=folder, timeout=120 * SLOW, check=False)
        assert done.returncode == 0, (command, done)


def test_paths_that_are_named_exist():
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(([a-zA-Z_./-]+)\)", text):
        assert (ROOT / path).exists(), path
