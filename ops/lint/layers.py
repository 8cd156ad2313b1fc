#!/usr/bin/python3
"""Who may include whom, and which folder owns which library. Exit 1 with one line for each breach."""
import pathlib
import re
import sys

LAYERS = {  # folder: folders it may include besides itself
    "base": set(),
    "proto": {"base"},
    "wire": {"base", "proto"},
    "store": {"base", "proto"},
    "source": {"base"},
    "tensor": {"base"},
    "model": {"base", "tensor"},
    "worker": {"base", "proto", "wire", "tensor", "model"},
    "encoder_worker": {"base", "proto", "wire", "source", "tensor", "model", "worker"},
    "qformer_worker": {"base", "proto", "wire", "tensor", "model", "worker"},
    "llm_worker": {"base", "proto", "wire", "tensor", "model", "worker"},
    "broker": {"base", "proto", "wire", "store"},
    "console": {"base", "model"},
    "recipe": {"base", "proto", "tensor", "model", "console"},
    "local": {"base", "proto", "tensor", "recipe", "console"},
    "job": {"base", "proto", "wire", "store", "source", "console"},
    "client/export": {"base", "proto", "store", "source", "model"},
    "client/selftest": {"base", "store", "tensor", "model", "console", "recipe", "local"},
    "client": {"base", "proto", "wire", "store", "source", "tensor", "model",
               "console", "recipe", "local", "job", "client/export", "client/selftest"},
}
OWNERS = {  # header: folders that may include it
    r"protobuf-c/|\.pb-c\.h": {"proto"},
    r"zmq\.h": {"wire"},
    r"lmdb\.h": {"store"},
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
    root = pathlib.Path(__file__).resolve().parents[2]
    bad = 0
    for folder, allowed in LAYERS.items():
        for path in sorted(path for pattern in FILES for path in (root / folder).glob(pattern)):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                quote, name = match.groups()
                included = folder_of(name)
                where = f"{path.relative_to(root)}:{number}"
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
