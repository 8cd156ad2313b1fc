#!/usr/bin/env python3
"""What is wanted of a GPU (docs/gpu-check.md) beside what results.jsonl of gpu-check.sh has: a line for each, reached
or not.

    gpu_goals.py RESULTS

Rates are medians of the rounds, at the best batch (the daemons: of the best source of pictures); transformers' are
those of the same file.
"""

import json
import pathlib
import statistics
import sys

OPT, T5 = "opt-2.7b", "flan-t5-xl"
LEAST_SECONDS = 10  # of a rate that is compared with transformers' encoder


class Results:
    def __init__(self, rows):
        self.rows = [r for r in rows if r.get("images_per_s") and "error" not in r and not r.get("failed")]

    def best(self, who, part, model, dtype=None, source=None):
        """{rate, rows, at}: at: the batch or the source. None where nothing was measured."""
        groups = {}
        for r in self.rows:
            if (
                r["who"] == who
                and r["part"] == part
                and pathlib.Path(r.get("model", "")).name == model
                and dtype in (None, r["dtype"])
                and source in (None, r.get("source"))
            ):
                groups.setdefault(r.get("batch") or r.get("source"), []).append(r)
        found = [{"rate": statistics.median(r["images_per_s"] for r in g), "rows": g, "at": at} for at,
                 g in groups.items()]
        return max(found, key=lambda f: f["rate"], default=None)

    def ours(self, part, model, dtype="bf16", source=None):
        return self.best("blipline", part, model, dtype, source)


# A goal's measurement: Results -> (number, what it is made of), or None where something is missing.


def rate(part, model, dtype="bf16"):
    def of(results):
        found = results.ours(part, model, dtype)
        return found and (found["rate"], f"{found['rate']:.0f} img/s at {found['at']}" + remarks(found))

    return of


def beside_transformers(part, model, dtype="bf16"):
    def of(results):
        found, theirs = results.ours(part, model, dtype), results.best("hf", part, model)
        if not found or not theirs:
            return None
        text = (
            f"x transformers: {found['rate']:.0f} / {theirs['rate']:.0f} img/s, which is at {theirs['at']}"
            + remarks(found)
        )
        if part == "encoder" and min(r["seconds"] for r in found["rows"] + theirs["rows"]) < LEAST_SECONDS:
            text += f", MEASURED FOR LESS THAN {LEAST_SECONDS} s"
        return found["rate"] / theirs["rate"], text

    return of


def of_its_stages(model):
    def of(results):
        found = results.ours("chain", model)
        shares = [r["share_of_stages"] for r in found["rows"] if "share_of_stages" in r] if found else []
        return (statistics.median(shares), "of 1 / sum(1 / stage alone)" + remarks(found)) if shares else None

    return of


def of_another(part, other, source=None, other_source=None):
    def of(results):
        found, base = results.ours(part, OPT, source=source), results.ours(other, OPT, source=other_source)
        return (
            found
            and base
            and (found["rate"] / base["rate"], f"{found['rate']:.0f} / {base['rate']:.0f} img/s" + remarks(found))
        )

    return of


def remarks(found):
    return "" if all(r.get("mps", True) for r in found["rows"]) else ", without MPS"


GOALS = (
    ("encoder", 1.1, 1.2, beside_transformers("encoder", OPT)),
    ("Q-Former alone, on the device", 30000, 30000, rate("qformer-device", OPT)),
    ("OPT-2.7B alone, 20 forced tokens", 1500, 1800, rate("llm", OPT)),
    ("natural ends, beside static batches", 1.5, 1.5, of_another("natural", "natural-batches")),
    ("chain, OPT-2.7B", 1.25, 1.4, beside_transformers("chain", OPT)),
    ("chain, of its stages", 0.95, 0.95, of_its_stages(OPT)),
    ("chain from JPEG files, beside small pictures", 0.9, 0.9, of_another("chain", "chain", "jpeg", "small")),
    ("chain in fp8", 1.7, 2.1, beside_transformers("chain", OPT, "fp8")),
    ("chain, natural ends", 1.6, 2, beside_transformers("chain-natural", OPT)),
    ("chain, 5 beams", 300, 420, rate("chain-beams", OPT)),
    ("chain, FlanT5-XL", 1.7, 2.2, beside_transformers("chain", T5)),
)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Results([json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()])
    for name, must, goal, measure in GOALS:
        found = measure(results)
        if not found:
            print(f"  {name:45} not measured")
            continue
        said = "better" if found[0] >= goal else "wanted" if found[0] >= must else "NOT REACHED"
        print(f"  {name:45} {said:12} {found[0]:<8.4g} (wanted {must:g}, better {goal:g}) {found[1]}")


if __name__ == "__main__":
    main()
