#!/usr/bin/python3
"""compile_commands.json from the compiler's command lines that `make -Bn V=1` prints."""
import json
import os
import re
import sys

COMPILE = re.compile(r"\s*(?:gcc|g\+\+) .* -c -o (\S+) (\S+)$")


def main():
    lines = (COMPILE.match(line) for line in sys.stdin)
    commands = [{"directory": os.getcwd(), "command": m.group(0).strip(), "file": m.group(2), "output": m.group(1)}
                for m in lines if m and "/pic/" not in m.group(1)]
    json.dump(commands, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
