#!/usr/bin/python3
"""Who may include whom, and which folder owns which library. Exit 1 with one line for each breach."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# folder: folders it may include besides itself (the Makefile's table)
LAYERS = {name: set(uses.split()) for name, uses in
          re.findall(r"^USES_(\S+) *:=(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)}
OWNERS = {  # header: folders that may include it
    r"protobuf-c/|\.pb-c\.h": {"proto"},
    r"zmq\.h": {"wire"},
    r"lmdb\.h": {"store"},
    r"ini\.h": {"base"},
    r"(oneapi/dnnl|dnnl|cuda|cublas)": {"tensor"},
    r"(curl/|archive|yajl/)": {"source"},
    r"(jpeglib|spng|webp/|seccomp)": {"encoder_worker"},
    r"microhttpd": {"broker"},
}
FILES = ("*.[ch]*", "cuda/*.h", "cuda/*.cu", "cuda/*.cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def folder_of(name):
    """The folder of LAYERS that a header belongs to: the longest one that its path begins with."""
    return max((f for f in LAYERS if name.startswith(f + "/")), key=len, default=name.split("/")[0])


def main():
    unknown = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/*.c")} - LAYERS.keys()
    for folder in sorted(unknown):
        print(f"{folder}/ is not in the Makefile's table of folders (USES_{folder})")
    bad = len(unknown)
    for folder, allowed in LAYERS.items():
        for path in sorted(path for pattern in FILES for path in (ROOT / folder).glob(pattern)):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                quote, name = match.groups()
                included = folder_of(name)
                where = f"{path.relative_to(ROOT)}:{number}"
                if quote == '"' and not (name.endswith(".pb-c.h") and folder == "proto"):
                    if "/" not in name:
                        print(f'{where}: include by path from the root, not "{name}"')
                        bad += 1
                    elif included != folder and included not in allowed:
                        print(f"{where}: {folder}/ may not include {name}")
                        bad += 1
                for pattern, owners in OWNERS.items():
                    if re.match(pattern, name) and folder not in owners:
                        print(f"{where}: <{name}> belongs to {', '.join(sorted(owners))}/")
                        bad += 1
    if bad:
        sys.exit(1)
    print("layers: ok")


if __name__ == "__main__":
    main()
