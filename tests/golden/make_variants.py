#!/usr/bin/env python3
"""Edited and re-saved checkpoints: what transformers makes of each, and whether Blipline gives the same numbers or
refuses by name.

    make_variants.py WORK_DIR [--only PATTERN] [--blipline build/blipline] [--record]

The variants are small checkpoints (variants.py) with keys missing, null, contradicting each other or under other
names, with tokens, heads, data types and files as they occur, and what the transformers at hand saves. Each is loaded
by transformers as a user would load it (from_pretrained, the image processor, generate), and by Blipline (caption
--dry-run, then selftest on the numbers of transformers). The outcome of a variant is one of

    equal          the same ids, and tensors within 1e-5 (5e-5 for the logits of T5)
    refused        Blipline refuses it and says why; transformers would compute it
    both refuse    neither computes it
    no reference   Blipline computes it; transformers does not, or draws weights by chance
    DIFFERENT      Blipline computes something else: a fault

Outcomes are kept in WORK_DIR/results.json; --only tries those alone whose base, group and name match, and leaves the
others as they are there. --record writes tests/golden/variants: results.txt with every outcome, and for those of
`make test` table.json and the numbers to compare with.

It needs Python with torch, transformers and Pillow below 13 (which resizes tall pictures in another order). Exit 1
where anything is DIFFERENT.
"""

import argparse
import collections
import copy
import fnmatch
import hashlib
import json
import logging
import pathlib
import shutil
import subprocess
import sys

import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval,
    Blip2Processor, BlipImageProcessor,
)

import make_golden
import variant_edits
import variants

PICTURES = ("odd_444.jpg", "odd_rgba.png")
IMAGES = variants.GOLDEN / "images_odd"
ASKED = ((None, {"num_beams": 1}), (None, {"num_beams": 3}), ("a photo of", {"num_beams": 1}))
TEXTS = ("a cat and a dog", "two cats")
MAX_NEW = 10

# -- saved anew


def saved(base, directory, work):
    """What the transformers at hand makes of a base: the model in several types and shards, with its processor."""
    kind = Blip2ForImageTextRetrieval if base == "itm" else Blip2ForConditionalGeneration
    for dtype, shard, alone in (
        (torch.float32, "5GB", False),
        (torch.bfloat16, "100KB", False),
        (torch.float16, "5GB", True),
    ):
        to = work / f"saved-{base}-{str(dtype)[6:]}"
        shutil.rmtree(to, ignore_errors=True)
        kind.from_pretrained(directory, dtype=dtype).save_pretrained(to, max_shard_size=shard)
        tokenizer = make_golden.tokenizer_of(directory)
        if alone:
            BlipImageProcessor.from_pretrained(directory).save_pretrained(to)
            tokenizer.save_pretrained(to)
        else:
            Blip2Processor(BlipImageProcessor.from_pretrained(directory), tokenizer,
                           num_query_tokens=8).save_pretrained(to)
        yield (
            "saved by transformers",
            f"{str(dtype)[6:]}, shards of {shard}{', without processor' if alone else ''}",
            base,
            edits_between(directory, to),
            True,
        )


def edits_between(before, after):
    """The edits that make one checkpoint of the other."""
    edits = []
    for name in (
        "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
        "tokenizer.json",
    ):
        was, now = (d / name for d in (before, after))
        if not now.exists():
            edits += [["file", name, None]] if was.exists() else []
        elif not was.exists():
            edits.append(["file", name, make_golden.read_json(now)])
        else:
            a, b = make_golden.read_json(was), make_golden.read_json(now)
            edits += [["del", name, k] for k in a if k not in b] + [["set", name, k, v] for k,
                                                                    v in b.items() if k not in a or a[k] != v]
    a, b = variants.read_tensors(before), variants.read_tensors(after)
    if set(a) != set(b):
        edits += [["drop", n] for n in a if n not in b]
        assert set(b) <= set(a), sorted(set(b) - set(a))[:3]
    for prefix in sorted({n.split(".")[0] for n in b}):
        kinds = {b[n][0] for n in b if n.split(".")[0] == prefix}
        if len(kinds) == 1:
            edits.append(["type", prefix + "*", kinds.pop()])
        else:
            edits += [["type", n, b[n][0]] for n in b if n.split(".")[0] == prefix]
    edits.append(["shards", len(list(after.glob("model*.safetensors")))])
    return edits


def all_variants(bases, first, work):
    for base, directory in bases.items():
        yield from saved(base, directory, work)
    yield from variant_edits.all_edits(bases, first)


# -- transformers


class Refused(Exception):
    pass


def load(directory):
    config = make_golden.read_json(directory / "config.json")
    asked = config.get("architectures") or [
        (
            "Blip2ForImageTextRetrieval"
            if (config.get("qformer_config") or {}).get("use_qformer_text_input")
            else "Blip2ForConditionalGeneration"
        )
    ]
    kind = {
        "Blip2ForImageTextRetrieval": Blip2ForImageTextRetrieval,
        "Blip2ForConditionalGeneration": Blip2ForConditionalGeneration,
    }.get(asked[0])
    if kind is None:
        raise Refused(f"architectures {asked}: not one of ours")
    model, info = kind.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise Refused(f"{missing[0]} and so {len(missing)} tensors are drawn by chance")
    return model.eval()


def look(model, directory):
    size = model.config.vision_config.image_size
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    x = processor([Image.open(IMAGES / n).convert("RGB") for n in PICTURES], return_tensors="pt").pixel_values
    if tuple(x.shape[1:]) != (3, size, size):
        raise Refused(f"pictures become {tuple(x.shape)}")
    return x


def prompt_ids(model, tokenizer, text):
    if text is None:
        return None
    ids = [model.config.image_token_index] * model.config.num_query_tokens + make_golden.encode(tokenizer, text)
    return torch.tensor([ids] * len(PICTURES))


def captions(model, x, tokenizer, tensors):
    rows, lm = [], model.language_model
    deep = (
        lm.config.is_encoder_decoder and lm.config.num_decoder_layers > lm.config.num_layers
    )  # make_golden.generate says why
    for text, options in ASKED:
        ids = prompt_ids(model, tokenizer, text)
        try:
            out = model.generate(
                x, input_ids=ids, max_new_tokens=MAX_NEW, do_sample=False, return_dict_in_generate=True,
                output_logits=True, output_scores=True, **options, **({"use_cache": False} if deep else {}),
            )
        except (TypeError, AttributeError) as e:  # no bos, no image token: a prompt is needed, or cannot be
            rows.append({"prompt": text, "fails": f"{type(e).__name__}: {e}"})
            continue
        begin = 1 if lm.config.is_encoder_decoder else out.sequences.shape[1] - len(out.logits)
        rows.append({"prompt": text, "options": options, "max_new_tokens": MAX_NEW,
                     "ids": [make_golden.cut(s, make_golden.ends(model)) for s in out.sequences[:, begin:].tolist()]})
        if options == {"num_beams": 1}:
            tensors[make_golden.LOGITS[text]] = out.logits[0]
    if all("fails" in r for r in rows):
        raise Refused(rows[0]["fails"])
    return [r for r in rows if "fails" not in r]


@torch.no_grad()
def reference(directory):
    """The numbers in the form of selftest, or Refused."""
    try:
        model = load(directory)
        x, tokenizer = look(model, directory), AutoTokenizer.from_pretrained(directory)
        tokenizer("x")  # turns off the truncation and padding that the file may have, as every call does
        vision, queries = make_golden.look(model, x)
        cases = [
            {
                "text": t, "ids": make_golden.encode(tokenizer, t),
                "ids_no_special": make_golden.encode(tokenizer, t, False),
                "decoded": tokenizer.backend_tokenizer.decode(make_golden.encode(tokenizer, t)),
            }
            for t in TEXTS
        ]
        expected = {
            "made_with": {"transformers": transformers.__version__, "pillow": PIL.__version__},
            "images": list(PICTURES),
            "tokenizer": cases,
        }
        tensors = {"vision_last_hidden_state": vision, "qformer_last_hidden_state": queries}
        if isinstance(model, Blip2ForImageTextRetrieval):
            make_golden.scorer(model, tokenizer, vision, queries, tensors, expected, TEXTS)
        else:
            tensors["language_projection"] = model.language_projection(queries)
            expected["generate"] = captions(model, x, tokenizer, tensors)
    except Refused:
        raise
    except Exception as e:  # whatever it is, transformers does not compute this checkpoint
        raise Refused(f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:200]) from e
    if not all(t.isfinite().all() for t in tensors.values()):
        raise Refused("not finite")
    return expected, {k: v.contiguous().clone() for k, v in tensors.items()}


def save(out, expected, tensors):
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "expected.safetensors")
    (out / "expected.safetensors").chmod(0o644)
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")


# -- Blipline


def ours(directory, golden, options):
    """(accepted, why not or what differs)"""
    done = variants.dry_run(options.blipline, directory)
    if done.returncode:
        return False, variants.reason(done, directory)
    if golden is None:
        return True, ""
    return True, "; ".join(variants.differences(options.blipline, directory, golden, IMAGES))


def judge(options, directory):
    out = options.dir / "expected"
    shutil.rmtree(out, ignore_errors=True)
    try:
        expected, tensors = reference(directory)
        save(out, expected, tensors)
        why = None
    except Refused as e:
        why = str(e)
    accepted, words = ours(directory, None if why else out, options)
    if why is None:
        outcome = ("DIFFERENT" if words else "equal") if accepted else "refused"
    else:
        outcome = "no reference" if accepted else "both refuse"
        words = f"transformers: {why}" if accepted else f"{words} | transformers: {why}"
    return outcome, words.replace(str(options.dir), ""), out if why is None else None


# -- the record


def keep_expected(out, kept):
    """One folder for equal numbers."""
    digest = hashlib.sha256(
        b"".join((out / n).read_bytes() for n in ("expected.json", "expected.safetensors"))
    ).hexdigest()[:8]
    if not (kept / digest).exists():
        shutil.copytree(out, kept / digest)
    return digest


def write_record(results, kept):
    shutil.rmtree(variants.TABLE.parent, ignore_errors=True)
    variants.TABLE.parent.mkdir()
    counts = collections.Counter((r["group"], r["outcome"]) for r in results)
    outcomes = ("equal", "refused", "both refuse", "no reference", "DIFFERENT")
    lines = [
        (
            f"What make_variants.py found with transformers {transformers.__version__} and Pillow {PIL.__version__}:"
            f" {len(results)} variants."
        ),
        "",
        f"{'':24}" + "".join(f"{o:>14}" for o in outcomes),
    ]
    for group in dict.fromkeys(r["group"] for r in results):
        lines.append(f"{group:24}" + "".join(f"{counts[group, o] or '-':>14}" for o in outcomes))
    lines.append(f"{'all':24}" + "".join(f"{sum(r['outcome'] == o for r in results):>14}" for o in outcomes))
    for outcome in outcomes[1:] + outcomes[:1]:
        lines += ["", f"-- {outcome}", ""]
        lines += [
            f"{r['base']:4} {r['group']}: {r['name']}" + (f"\n         {r['why']}" if r["why"] else "")
            for r in results
            if r["outcome"] == outcome
        ]
    (variants.TABLE.parent / "results.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, seen = [], set()
    for r in (r for r in results if r["in_test"]):  # one for each thing that a base may become
        what = r["base"], r["group"], r.get("expected") or r.get("says") or r["name"]
        if what not in seen:
            rows.append({k: r[k] for k in ("name", "group", "base", "edits", "outcome", "expected", "says") if k in r})
        seen.add(what)
    for digest in {r["expected"] for r in rows if "expected" in r}:
        shutil.copytree(kept / digest, variants.TABLE.parent / digest)
    variants.TABLE.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n",
                              encoding="utf-8")


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("dir", type=pathlib.Path, help="where the checkpoints are made")
    p.add_argument("--only", default="*", metavar="PATTERN", help="e.g. 't5 gates*'")
    p.add_argument("--blipline", default=str(variants.ROOT / "build/blipline"))
    p.add_argument("--record", action="store_true", help="write tests/golden/variants")
    return p.parse_args()


def main():
    options = parse()
    if int(PIL.__version__.split(".")[0]) >= 13:
        sys.exit(
            f"make_variants.py: Pillow {PIL.__version__} resizes tall pictures in another order than published numbers"
            " were made with; take one below 13"
        )
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    options.dir.mkdir(parents=True, exist_ok=True)
    bases = {}
    for base in variants.BASES:
        bases[base] = options.dir / f"base-{base}"
        shutil.rmtree(bases[base], ignore_errors=True)
        variants.write_base(base, bases[base])
    first = {base: reference(bases[base])[0]["generate"][0]["ids"][0][2] for base in ("opt", "t5")}
    log = options.dir / "results.json"
    known = {(r["base"], r["group"], r["name"]): r for r in (json.loads(log.read_text()) if log.exists() else [])}
    results = []
    for group, name, base, edits, in_test in all_variants(bases, first, options.dir):
        if not fnmatch.fnmatchcase(f"{base} {group}: {name}", options.only):
            results += [known[base, group, name]] if (base, group, name) in known else []
            continue
        directory = variants.apply(bases[base], copy.deepcopy(edits), options.dir / "variant")
        outcome, why, out = judge(options, directory)
        row = {
            "group": group, "name": name, "base": base, "edits": edits, "outcome": outcome, "why": why,
            "in_test": in_test,
        }
        if in_test and outcome == "equal":
            row["expected"] = keep_expected(out, options.dir / "kept")
        elif outcome in ("refused", "both refuse"):
            row["says"] = why.split(" | transformers:")[0]
        results.append(row)
        if outcome in ("DIFFERENT", "no reference") or options.only != "*":
            print(f"{outcome:12} {base} {group}: {name}\n             {why}", flush=True)
    log.write_text(json.dumps(results))
    print(dict(collections.Counter(r["outcome"] for r in results)))
    if options.record:
        write_record(results, options.dir / "kept")
    return 1 if any(r["outcome"] == "DIFFERENT" for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
