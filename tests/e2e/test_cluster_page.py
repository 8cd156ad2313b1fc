"""docs/cluster.md, line by line, on hosts with a network address, processes and folders of their own.

A fence ```console on HOST is run there. `scp` is a stand-in that copies between the folders of the hosts."""

import contextlib
import os
import shutil
import subprocess

import pytest
from harness import BUILD, MODEL, PATIENCE, PICTURES, ROOT, SLOW, wait_for
from hosts import Hosts, why_not
from test_docs import blocks, commands, prints

PAGE = ROOT / "docs" / "cluster.md"
NAMES = ("broker-host", "worker-host", "desk")
FOLDERS = ("etc", "home", "run", "srv", "var")  # what a host changes there, the others do not see
SCP = r"""#!/bin/sh
there() { echo "$1" | sed -E "s,^([a-z]+-[a-z]+|desk):,$TOP/\1,"; }
cp "$(there "$1")" "$(there "$2")"
"""
BOOT = """
set -e
hostname $HOST
for f in $FOLDERS; do mount -t overlay o -o lowerdir=/$f,upperdir=$TOP/$HOST/$f,workdir=$TOP/$HOST.work/$f /$f; done
echo up
exec sleep infinity
"""


class Host:
    """Ends with all its processes."""

    def __init__(self, hosts, name, top):
        for folder in FOLDERS:
            (top / name / folder).mkdir(parents=True)
            (top / f"{name}.work" / folder).mkdir(parents=True)
        (top / name / "etc" / "hosts").write_text("".join(f"{hosts.address(n)} {n}\n" for n in NAMES))
        (top / name / "home" / "alice").mkdir()
        (top / name / "srv" / "photos").symlink_to(top / "photos")
        (top / name / "srv" / "models").symlink_to(top / "models")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("BLIPLINE_", "XDG_", "MAKE"))}
        self.env.update(PATH=f"{top / 'bin'}:{BUILD}:{os.environ['PATH']}", HOME="/home/alice", TERM="dumb",
                        TOP=str(top), HOST=name, FOLDERS=" ".join(FOLDERS))
        self.root = subprocess.Popen(
            [*hosts.within(name), "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", BOOT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)
        assert self.root.stdout.readline() == "up\n", self.root.stdout.read()
        with open(f"/proc/{self.root.pid}/task/{self.root.pid}/children") as children:
            self.pid = children.read().split()[0]

    def run(self, command):
        """What it prints; what it leaves running goes on."""
        with open(f"{self.env['TOP']}/printed", "w+b") as out:
            done = subprocess.run(
                ["nsenter", "-t", self.pid, "--mount", "--uts", "--net", "--pid", "bash", "-c", command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env, cwd="/",
                timeout=60 * PATIENCE * SLOW)
            out.seek(0)
            printed = out.read().decode(errors="replace")
        assert done.returncode == 0, f"{self.env['HOST']}$ {command}\n{printed}"
        return printed.splitlines()

    def end(self):
        self.root.kill()
        self.root.wait()


def why_no_folders():
    """Why a host cannot have folders of its own; "": it can."""
    os.makedirs("/tmp/bl-overlay/upper", exist_ok=True)
    os.makedirs("/tmp/bl-overlay/work", exist_ok=True)
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "overlay", "o", "-o",
                            "lowerdir=/srv,upperdir=/tmp/bl-overlay/upper,workdir=/tmp/bl-overlay/work", "/srv"],
                           capture_output=True, text=True)
    shutil.rmtree("/tmp/bl-overlay", ignore_errors=True)
    return tried.stderr.strip()


@pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")
def test_every_line_works_on_its_host(folder):
    if why_no_folders():
        pytest.skip(f"no folders of their own for hosts: {why_no_folders()}")
    (folder / "photos").mkdir()
    for picture in PICTURES:
        shutil.copy(picture, folder / "photos")
    shutil.copytree(MODEL, folder / "models" / "blip2-opt-2.7b")
    (folder / "bin").mkdir()
    (folder / "bin" / "scp").write_text(SCP)
    (folder / "bin" / "scp").chmod(0o755)
    with Hosts(*NAMES) as network, contextlib.ExitStack() as ends:
        hosts = {}
        for name in NAMES:
            hosts[name] = Host(network, name, folder)
            ends.callback(hosts[name].end)
        for language, remark, lines in blocks(PAGE):
            if language != "console" or not remark.startswith("on "):
                continue
            for command, shown in commands(lines):
                printed = hosts[remark[3:]].run(command)
                if command == "blipline models":  # a user types more slowly than workers start
                    wait_for(lambda: prints(shown, hosts[remark[3:]].run(command)))
                    continue
                assert not shown or prints(shown, printed), "\n".join(
                    [f"{remark[3:]}$ {command}", "shown:", *shown, "printed:", *printed])
