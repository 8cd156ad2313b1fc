#!/usr/bin/python3
"""Functions that a header of the product declares and nothing in the product calls. Exit 1 with one line for each.

A call inside the function's own file counts, a call from tests/ does not. x_validate() is for tests: it checks
invariants.
"""
import pathlib
import re
import sys

NOT_PRODUCT = {"build", "tests", "examples"}
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)
PROTOTYPE = re.compile(r"^[A-Za-z_][^;:{}()=]*?\b(\w+)\((?:[^;{}]*)\)[^;{}]*;", re.M)
DEFINITION = re.compile(r"^[A-Za-z_][^;:{}()=]*?\b(\w+)\([^;{}]*\)\s*\{", re.M)
KEPT = {  # called from outside the product's sources
    "ops_cuda_new",  # found with dlsym
    "accept4",       # libzmq calls it
    "safetensors_parse",  # for fuzzers, which have bytes and no file
}


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    files = [path for pattern in ("*.h", "*.c", "*.cuh", "*.cu") for path in root.rglob(pattern)
             if path.relative_to(root).parts[0] not in NOT_PRODUCT]
    texts = {path: NOISE.sub(" ", path.read_text()) for path in files}
    declared = {}
    uses = {}
    for path, text in texts.items():
        for word in re.findall(r"\w+", text):
            uses[word] = uses.get(word, 0) + 1
    for path, text in texts.items():
        if path.suffix in (".h", ".cuh"):
            for match in PROTOTYPE.finditer(text):
                if not match.group(0).startswith(("static", "typedef")):
                    declared.setdefault(match.group(1), path)
        for pattern in (PROTOTYPE, DEFINITION):
            for match in pattern.finditer(text):
                uses[match.group(1)] -= 1
    unused = sorted((path, name) for name, path in declared.items() 
                    if uses[name] <= 0 and name not in KEPT and not name.endswith("_validate"))
    for path, name in unused:
        print(f"{path.relative_to(root)}: nothing calls {name}()")
    if unused:
        sys.exit(1)
    print("unused: none")


if __name__ == "__main__":
    main()
