#!/usr/bin/python3
"""Log lines of daemons are logfmt: event=NAME key=value key="text". Exit 1 with one line for each that is not."""
import pathlib
import re
import sys

CALL = re.compile(r'\blog_(?:err|warn|info|debug)\(\s*((?:"(?:[^"\\]|\\.)*"|PRI\w+|\s)+)')
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"|(PRI\w+)')
LINE = re.compile(r'event=[\w%]+(?: \w+=(?:"[^"]*"|[^\s"]+))*(?:%s)?')


# What may log in a daemon; the client and store/ speak to a person.
DAEMONS = ("base", "wire", "broker", "worker", "encoder_worker", "qformer_worker", "llm_worker")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    bad = 0
    for path in sorted(p for p in root.glob("*/*.c") if p.parent.name in DAEMONS):
        text = path.read_text()
        for call in CALL.finditer(text):
            line = "".join(m[1] if m[2] is None else "u" for m in LITERAL.finditer(call[1])).replace('\\"', '"')
            if not LINE.fullmatch(line):
                print(f"{path.relative_to(root)}:{text.count(chr(10), 0, call.start()) + 1}: not logfmt: {line}")
                bad += 1
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
