#!/usr/bin/python3
"""What the relay of tensors costs between hosts: the broker, a worker that sends and one that receives are network
namespaces joined by veth. Images' features (723712 bytes) and outputs of the Q-Former in bf16 (49152 bytes), one item a
message; bare ZeroMQ beside the broker's socket, without keys and with them.

    O=build tests/bench/wire_hosts.py [BYTES ...]
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from hosts import Hosts, why_not  # noqa: E402


def main():
    if why_not():
        print(f"no network namespaces: {why_not()}")
        return
    with Hosts("broker", "one", "two") as hosts:
        spaces = [hosts.space(name) for name in hosts.names]
        subprocess.run([pathlib.Path(os.environ.get("O", ROOT / "build")) / "tests" / "bench" / "bench_wire", "--hosts",
                        hosts.address("broker"), *spaces, *(sys.argv[1:] or ("49152", "723712"))], check=True)


if __name__ == "__main__":
    main()
