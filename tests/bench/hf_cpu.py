#!/usr/bin/python3
"""Hugging Face transformers on this machine's CPU, on any checkpoint directory: what Blipline is measured beside.

    PYTHON tests/bench/hf_cpu.py MODEL_DIR [--images N|DIR] [--count N] [--batches 1,4,16] [--threads N] [--dtype
        float32,bfloat16]
                                 [--beams 1,5] [--max-new 20] [--forced] [--prompt TEXT] [--texts K] [--seconds S]
                                     [--csv NAME]

Captions for Blip2ForConditionalGeneration (greedy, beams), ITC and ITM scores of K texts a picture for
Blip2ForImageTextRetrieval. One JSON line a measurement, then one with "best" for each data type and number of beams:
HF at its best batch. Pictures of a directory are decoded and resized here with Pillow as MODEL.md says, inside the
measured time; --images N takes N random ones instead. --forced makes every caption --max-new tokens long.

PYTHON is one with torch, transformers and Pillow.
"""

import argparse
import json
import os
import pathlib
import resource
import sys
import time

CURE = """hf_cpu.py: {missing} is not installed for {python}.
The cure:   python3 -m venv hf && hf/bin/pip install torch transformers pillow
then:       hf/bin/python tests/bench/hf_cpu.py MODEL_DIR        (make bench: HF_PYTHON=hf/bin/python)"""

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in MODEL_DIR
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
try:
    import numpy as np
    import torch
    import transformers
    from PIL import Image
    from tokenizers import Tokenizer
    from transformers import Blip2ForConditionalGeneration
except ImportError as error:
    print(CURE.format(missing=(error.name or str(error)).split(".")[0], python=sys.executable), file=sys.stderr)
    sys.exit(2)
try:
    from transformers import Blip2ForImageTextRetrieval
except ImportError:
    Blip2ForImageTextRetrieval = None  # older than 4.45

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


# -- peak memory


def reset_peak():
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes():
    try:
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- pictures


class Pixels:
    """MODEL.md "Pixels": RGB, squashed to a square with Pillow's bicubic, rescaled and normalised."""

    def __init__(self, directory):
        c = json.loads((directory / "preprocessor_config.json").read_text())
        self.size = c["size"]["height"] if isinstance(c["size"], dict) else c["size"]
        scale = c.get("rescale_factor", 1 / 255) if c.get("do_rescale", True) else 1
        mean, std = (c["image_mean"], c["image_std"]) if c.get("do_normalize", True) else ([0] * 3, [1] * 3)
        values = np.arange(256)[:, None] * scale
        self.table = ((values - np.array(mean)) / np.array(std)).astype(np.float32)  # a value a byte and colour

    def of_file(self, path):
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC))
        return self.of_bytes(rgb)

    def of_bytes(self, rgb):
        return np.stack([self.table[rgb[..., i], i] for i in range(3)])


def pictures(options, pixels):
    """The names (or None) of `count` pictures, and a function that makes a tensor of some of them."""
    if options.images.isdigit():
        rng = np.random.default_rng(1)
        count = options.count or int(options.images)
        some = [
            pixels.of_bytes(rng.integers(0, 256, (pixels.size, pixels.size, 3), dtype=np.uint8))
            for _ in range(min(count, 64))
        ]
        return [None] * count, lambda first, n: torch.from_numpy(
            np.stack([some[i % len(some)] for i in range(first, first + n)])
        )
    files = sorted(p for p in pathlib.Path(options.images).iterdir() if p.suffix.lower() in PICTURES)
    if not files:
        sys.exit(f"hf_cpu.py: {options.images}: no pictures")
    names = [files[i % len(files)] for i in range(options.count or len(files))]
    return names, lambda first, n: torch.from_numpy(np.stack([pixels.of_file(p) for p in names[first:first + n]]))


# -- model


class StageClock:
    """Seconds inside the vision model and the Q-Former."""

    def __init__(self, model):
        self.seconds = {"vision": 0.0, "qformer": 0.0}
        for name, module in (("vision", model.vision_model), ("qformer", model.qformer)):
            module.register_forward_pre_hook(self.before)
            module.register_forward_hook(lambda *_, name=name: self.after(name))
        self.start = 0.0

    def before(self, *_):
        self.start = time.perf_counter()

    def after(self, name):
        self.seconds[name] += time.perf_counter() - self.start

    def clear(self):
        self.seconds = dict.fromkeys(self.seconds, 0.0)


def load(directory, dtype):
    config = json.loads((directory / "config.json").read_text())
    kind = config.get("architectures", ["Blip2ForConditionalGeneration"])[0]
    cls = Blip2ForConditionalGeneration if kind == "Blip2ForConditionalGeneration" else Blip2ForImageTextRetrieval
    if cls is None:
        sys.exit(
            f"hf_cpu.py: transformers {transformers.__version__} has no {kind}; pip install --upgrade transformers"
        )
    start = time.perf_counter()
    try:
        model = cls.from_pretrained(directory, dtype=getattr(torch, dtype))
    except TypeError:  # the older name of the argument
        model = cls.from_pretrained(directory, torch_dtype=getattr(torch, dtype))
    return model.eval(), time.perf_counter() - start


class Captions:
    """generate() as its documentation shows it."""

    def __init__(self, model, tokenizer, options, beams):
        self.model, self.tokenizer, self.options, self.beams = model, tokenizer, options, beams
        c = model.config
        prompt = tokenizer.encode(options.prompt).ids if options.prompt else [c.text_config.bos_token_id]
        self.ids = [getattr(c, "image_token_index", None) or c.image_token_id] * c.num_query_tokens + prompt
        self.decoder_only = not c.text_config.is_encoder_decoder
        self.n_new, self.first = 0, None

    def __call__(self, pixels):
        ids = torch.tensor([self.ids] * len(pixels))
        least = self.options.max_new if self.options.forced else self.options.min_new
        out = self.model.generate(
            pixel_values=pixels.to(self.model.dtype), input_ids=ids, attention_mask=torch.ones_like(ids),
            do_sample=False, num_beams=self.beams, max_new_tokens=self.options.max_new,
            **({"min_new_tokens": least} if least else {}),
        )
        begin = (
            len(self.ids)
            if self.decoder_only and out.shape[1] > self.options.max_new
            else 0 if self.decoder_only else 1
        )
        new = out[:, begin:]
        eos = self.model.language_model.generation_config.eos_token_id
        ends = torch.isin(new, torch.tensor(eos if isinstance(eos, list) else [eos]))
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, new.shape[1]).tolist()
        self.n_new += sum(lengths)
        if self.first is None:
            self.first = self.tokenizer.decode(new[0, :lengths[0]].tolist(), skip_special_tokens=True).strip()

    def results(self, n):
        return {"task": "caption", "beams": self.beams, "max_new": self.options.max_new, "forced": self.options.forced,
                "new_tokens_per_image": round(self.n_new / n, 2), "first": self.first}


class Scores:
    """ITC and ITM of K texts a picture. The trunk runs once a picture, which the library's own forward does not do by
    itself."""

    def __init__(self, model, tokenizer, options):
        self.model, self.k, self.first = model, options.texts, None
        words = [
            "a photo of a dog", "two cats sitting on a red chair", "a small bird near the water",
            "people walking in the city", "a plate of food on a table",
        ]
        encoded = [tokenizer.encode(words[i % len(words)]).ids for i in range(self.k)]
        longest = max(map(len, encoded))
        self.ids = torch.tensor([e + [0] * (longest - len(e)) for e in encoded])
        self.mask = torch.tensor([[1] * len(e) + [0] * (longest - len(e)) for e in encoded])

    def __call__(self, pixels):
        m = self.model
        image = m.vision_model(pixels.to(m.dtype), return_dict=True).last_hidden_state
        forward = m.vision_model.forward
        output = transformers.modeling_outputs.BaseModelOutputWithPooling
        ids, mask = self.ids.repeat(len(pixels), 1), self.mask.repeat(len(pixels), 1)
        try:
            m.vision_model.forward = lambda *_, **__: output(last_hidden_state=image)
            itc = m(pixel_values=pixels, input_ids=ids, attention_mask=mask,
                    use_image_text_matching_head=False).logits_per_image
            m.vision_model.forward = lambda *_, **__: output(last_hidden_state=image.repeat_interleave(self.k, 0))
            itm = m(pixel_values=pixels, input_ids=ids, attention_mask=mask,
                    use_image_text_matching_head=True).logits_per_image
        finally:
            m.vision_model.forward = forward
        if self.first is None:
            self.first = {"itc": round(itc[0, 0].item(), 6), "itm": round(itm.float().softmax(-1)[0, 1].item(), 6)}

    def results(self, _):
        return {"task": "score", "texts": self.k, "first": self.first}


# -- measuring


def measure(job, clock, take, n_images, batch, seconds):
    """Images a second over at least `seconds` and one batch, whole rounds of the pictures where there are few."""
    job(take(0, min(batch, n_images)))  # warm
    job.n_new = 0
    clock.clear()
    reset_peak()
    done, prepare, start = 0, 0.0, time.perf_counter()
    while True:
        first = done % n_images
        n = min(batch, n_images - first)
        before = time.perf_counter()
        pixels = take(first, n)
        prepare += time.perf_counter() - before
        job(pixels)
        done += n
        took = time.perf_counter() - start
        if took >= seconds and (done >= n_images or took >= 3 * seconds):
            break
    inside = dict(clock.seconds)
    stages = {"prepare": prepare, **inside, "rest": took - prepare - sum(inside.values())}
    return {"batch": batch, "images": done, "seconds": round(took, 3), "images_per_s": round(done / took, 4),
            "stage_s": {k: round(v, 3) for k, v in stages.items()}, "peak_rss": peak_bytes(), **job.results(done)}


def parse():
    p = argparse.ArgumentParser(description="Hugging Face transformers on the CPU, as a yardstick.")
    numbers = lambda text: [int(x) for x in text.split(",")]
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("--images", default="16", help="a directory, or how many random pictures (16)")
    p.add_argument("--count", type=int, help="pictures of a round; a directory's are taken again and again")
    p.add_argument("--batches", type=numbers, default=[1, 4, 16])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--dtype", type=lambda text: text.split(","), default=["float32"])
    p.add_argument("--beams", type=numbers, default=[1])
    p.add_argument("--max-new", type=int, default=20)
    p.add_argument("--min-new", type=int, default=0)
    p.add_argument("--forced", action="store_true", help="every caption has --max-new tokens")
    p.add_argument("--prompt", default="")
    p.add_argument("--texts", type=int, default=1, help="texts a picture, for retrieval checkpoints")
    p.add_argument("--seconds", type=float, default=5, help="of a measurement, at least")
    p.add_argument("--csv", metavar="NAME", help="also print CSV,NAME,... for the best batch")
    return p.parse_args()


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    names, take = pictures(options, Pixels(options.model))
    about = {
        "hf": transformers.__version__, "torch": torch.__version__, "model": str(options.model),
        "threads": options.threads,
    }
    for dtype in options.dtype:
        reset_peak()
        model, load_s = load(options.model, dtype)
        print(
            json.dumps(
                {**about, "dtype": dtype, "task": "load", "seconds": round(load_s, 2), "peak_rss": peak_bytes()}
            ),
            flush=True,
        )
        clock = StageClock(model)
        retrieval = not hasattr(model, "language_model")
        for beams in [1] if retrieval else options.beams:
            rows = []
            for batch in options.batches:
                job = Scores(model, tokenizer, options) if retrieval else Captions(model, tokenizer, options, beams)
                with torch.inference_mode():
                    rows.append(
                        {**about, "dtype": dtype, **measure(job, clock, take, len(names), batch, options.seconds)}
                    )
                print(json.dumps(rows[-1]), flush=True)
            best = max(rows, key=lambda r: r["images_per_s"])
            print(
                json.dumps(
                    {
                        "best": {k: best[k] for k in ("task", "dtype", "batch", "images_per_s")},
                        **({} if retrieval else {"beams": beams}),
                    }
                ),
                flush=True,
            )
            if options.csv:
                print(
                    f"CSV,{options.csv},{best['task']},{dtype},{beams},{best['batch']},{best['images_per_s']}",
                    flush=True,
                )
        del model, clock


if __name__ == "__main__":
    main()
