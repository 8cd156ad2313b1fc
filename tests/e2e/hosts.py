"""Several hosts on one machine: network namespaces with an address each, joined by a switch.

They need root, ip (iproute2) and nft (nftables); why_not() says what is missing."""

import contextlib
import ctypes
import os
import shutil
import subprocess

NETWORK = "10.123.7."  # nothing outside the namespaces sees it
CLONE_NEWNET = 0x40000000


def sh(*argv):
    subprocess.run(argv, check=True, capture_output=True, text=True)


def why_not():
    """Why this machine cannot have hosts; "": it can."""
    for program in ("ip", "nft"):
        if not shutil.which(program):
            return f"{program} is not installed"
    name = f"bl-try-{os.getpid()}"
    tries = (["ip", "netns", "add", name], ["ip", "netns", "exec", name, "nft", "add table inet faults"])
    for argv in tries:
        tried = subprocess.run(argv, capture_output=True, text=True)
        if tried.returncode:
            break
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"{' '.join(tried.args)}: {tried.stderr.strip()}" if tried.returncode else ""


class Hosts:
    def __init__(self, *names):
        self.names = names
        sh("ip", "netns", "add", self.space("switch"))
        sh(*self.within("switch"), "ip", "link", "add", "switch", "up", "type", "bridge")
        for i, name in enumerate(names):
            sh("ip", "netns", "add", self.space(name))
            sh(*self.within("switch"), "ip", "link", "add", f"to{i}", "type", "veth",
               "peer", "name", "eth0", "netns", self.space(name))
            sh(*self.within("switch"), "ip", "link", "set", f"to{i}", "master", "switch", "up")
            sh(*self.within(name), "ip", "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                sh(*self.within(name), "ip", "link", "set", device, "up")

    def space(self, name):
        return f"bl-{os.getpid()}-{name}"

    def address(self, name):
        return f"{NETWORK}{self.names.index(name) + 1}"

    def within(self, name):
        """A command line that runs what is appended to it on that host."""
        return ["ip", "netns", "exec", self.space(name)]

    @contextlib.contextmanager
    def inside(self, name):
        """This thread, and the threads and sockets that it makes, are on that host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.space(name)}") as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                libc.setns(home.fileno(), CLONE_NEWNET)

    def join(self, name):
        """Nothing is dropped."""
        sh(*self.within(name), "nft", "flush ruleset")

    def drop(self, name, which=""):
        """Drop what the host sends and receives: all of it, or as much as an nft expression says."""
        self.join(name)
        sh(*self.within(name), "nft", "add table inet faults")
        for hook, device in (("input", "iifname"), ("output", "oifname")):
            sh(*self.within(name), "nft", f"add chain inet faults {hook} {{ type filter hook {hook} priority 0 ; }}")
            sh(*self.within(name), "nft", f'add rule inet faults {hook} {device} "eth0" {which} drop')

    def lose(self, name, percent):
        self.drop(name, f"numgen random mod 100 < {percent}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for name in (*self.names, "switch"):
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True)
