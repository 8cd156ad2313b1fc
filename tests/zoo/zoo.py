#!/usr/bin/env python3
"""Some two thousand picture files, good, odd and damaged, and what Pillow makes of them: the reference decides which
files
are pictures, and what their pixels are.

    zoo.py compare PROGRAM [--mutations N] [--seed N]   hold PROGRAM (build/tests/zoo/decode_rgb) against this
                                                        Python's Pillow
    zoo.py store                                        write files.safetensors.gz, expected.tsv and RESULTS.md

The reference is Pillow 12.3: both commands want it. `make test` compares with what was stored and needs no Pillow.
Where Blipline differs on purpose is said in exceptions.tsv: a pattern of names, a tab, the reason's name in MODEL.md.
"""

import argparse
import collections
import fnmatch
import gzip
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import PIL
from PIL import Image, ImageOps

import jpegs
import pngs
import webps

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = (pngs, jpegs, webps)
CUT_STEP = 10


def pixels(im):
    im = im.convert("RGB")
    return "%d %d %08x" % (im.width, im.height, zlib.crc32(im.tobytes()))


def reference(content):
    """The verdict, and why it is a refusal."""
    try:
        plain = pixels(Image.open(io.BytesIO(content)))
    except Exception as e:
        return "refused", "%s: %s" % (type(e).__name__, str(e)[:100])
    try:
        turned = pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    except Exception:
        return plain, ""  # EXIF data that Pillow cannot read
    return plain if turned == plain else plain + " turned " + turned, ""


def variants():
    for kind in KINDS:
        yield from kind.variants()
        yield from kind.to_cut()


def cuts():
    for kind in KINDS:
        for name, content in kind.to_cut():
            for n in range(0, len(content), CUT_STEP):
                yield "%s@%d" % (name, n), content[:n]


def mutations(n, seed):
    rng = random.Random(seed)
    base = [(name, content) for name, content in variants() if 20 < len(content) < 6000]
    for i in range(n):
        name, content = rng.choice(base)
        b = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            if not b:
                break
            at = rng.randrange(min(len(b), rng.choice((len(b), 200))))
            what = rng.choice("bbbbyyydic")
            if what == "b":
                b[at] ^= 1 << rng.randrange(8)
            elif what == "y":
                b[at] = rng.choice((0, 255, 1, 127, 128, rng.randrange(256)))
            elif what == "d":
                del b[at:at + rng.randrange(1, 30)]
            elif what == "i":
                b[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 12)))
            else:
                del b[at + 16:]
        b = bytes(b)
        yield "mutation/%d/%s" % (i, name), pngs.with_checksums(b) if name.startswith("png/") and i % 4 else b


def exceptions():
    with open(os.path.join(HERE, "exceptions.tsv")) as f:
        return [line.rstrip("\n").split("\t") for line in f if line.strip()]


def reason_of(name, rules):
    name = re.sub(r"^mutation/\d+/|@.*", "", name)
    return next((reason for pattern, reason in rules if fnmatch.fnmatchcase(name, pattern)), "")


class Decoder:
    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "picture")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def verdict(self, content):
        with open(self.path, "wb") as f:
            f.write(content)
        self.process.stdin.write(self.path + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n").split("\t")


def compare(args):
    rules, decoder, count, unknown = exceptions(), Decoder(args.program), collections.Counter(), 0
    everything = [*variants(), *cuts(), *mutations(args.mutations, args.seed)]
    for name, content in everything:
        got, message = decoder.verdict(content)
        want, why = reference(content)
        family = "/".join(name.split("/")[:2]) if not name.startswith("mutation") else "mutation"
        reason = reason_of(name, rules)
        if got == want:
            count[family, "refused" if got == "refused" else "equal"] += 1
        elif reason:
            count[family, "exception"] += 1
        else:
            count[family, "unknown"] += 1
            unknown += not name.startswith("mutation")
            print("%s: %s (%s); Pillow: %s (%s)" % (name, got, message, want, why))
    print(table(count))
    return 1 if unknown else 0


def table(count):
    lines = ["| files | equal | refused by both | exceptions |", "|---|---|---|---|"]
    total = collections.Counter()
    for family in sorted({f for f, _ in count}):
        row = [count[family, k] for k in ("equal", "refused", "exception")]
        total.update(dict(zip("abc", row)))
        extra = count[family, "unknown"]
        lines.append("| %s | %d | %d | %d |%s" % (family, *row, " and %d unexplained" % extra if extra else ""))
    return "\n".join(lines + ["| all | %d | %d | %d |" % tuple(total[k] for k in "abc")])


def store():
    rules, files, lines, count = exceptions(), list(variants()), [], collections.Counter()
    header, at = {}, 0
    for name, content in files:
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(os.path.join(HERE, "files.safetensors.gz"), "wb") as f:
        f.write(gzip.compress(struct.pack("<Q", len(text)) + text + b"".join(c for _, c in files), mtime=0))
    for name, content in [*files, *cuts()]:
        verdict, reason = reference(content)[0], reason_of(name, rules)
        lines.append("\t".join([name, verdict] + [reason] * bool(reason)))
        family = "/".join(name.split("/")[:2])
        count[family, "exception" if reason else "refused" if verdict == "refused" else "equal"] += 1
    with open(os.path.join(HERE, "expected.tsv"), "w") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(HERE, "RESULTS.md"), "w") as f:
        f.write(
            "# The zoo, against Pillow %s\n\nWritten by `zoo.py store`; `make test` holds the decoder to it. \"Equal\""
            " is the same pixels, as the file\nis and turned by its EXIF data; exceptions are explained in MODEL.md,"
            " \"Pixels\".\n\n%s\n" % (PIL.__version__, table(count))
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("compare")
    c.add_argument("program")
    c.add_argument("--mutations", type=int, default=0)
    c.add_argument("--seed", type=int, default=1)
    commands.add_parser("store")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if not PIL.__version__.startswith("12.3."):
        sys.exit(
            "the reference is Pillow 12.3, this is %s: take a Python that has it (pip install pillow==12.3.0)"
            % PIL.__version__
        )
    sys.exit(compare(args) if args.command == "compare" else store())


if __name__ == "__main__":
    main()
