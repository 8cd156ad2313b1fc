#!/usr/bin/python3
"""Hugging Face transformers' BLIP-2 on a GPU (or, for trying this out, the CPU): what Blipline's GPU stages are
measured beside.

    PYTHON tests/bench/hf_blip2.py MODEL_DIR [--device cuda] [--dtype bfloat16] [--parts encoder,chain] [--batches
        64,256] [--seconds 10] [--weights random]
    PYTHON tests/bench/hf_blip2.py MODEL_DIR --serve         commands on stdin, answers on stdout (tests/bench/gpu.py
                                                             drives it)

Parts: encoder (vision tower), qformer (with the language projection), llm, natural, beams (language model alone, from
projected queries), chain, chain-natural, chain-beams (pixels to tokens), products, products-fp8, attention, copy
(what torch reaches on the encoder's shapes). llm and chain make --max-new tokens an image, the end held back until
then; natural ends each caption at a length of its own, 1 to 30 tokens, mean 10.5 (natural_length below, the same in
bench_gpu.c); beams are 5.

One JSON object a measurement. A command is one too: {"part": "encoder", "batch": 256, "seconds": 10}; {"part":
"close"} gives cached memory back. Weights are those of MODEL_DIR/config.json's shapes with random values of the size
that make_checkpoint.py gives them (--weights random), or the files' (--weights file). Inputs are on the device, all
types are --dtype, attention is torch's scaled_dot_product_attention.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import time

CURE = """hf_blip2.py: {missing} is not installed for {python}.
The cure:   python3 -m venv hf && hf/bin/pip install torch transformers pillow"""

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in MODEL_DIR
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault(
    "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"
)  # a batch of 768 fits beside another process
try:
    import torch
    import transformers
    from transformers import Blip2Config, Blip2ForConditionalGeneration, LogitsProcessor, LogitsProcessorList
except ImportError as error:
    print(CURE.format(missing=(error.name or str(error)).split(".")[0], python=sys.executable), file=sys.stderr)
    sys.exit(2)

import make_checkpoint

LONGEST = 30


def natural_length(i):
    """Tokens of caption number i where captions end by themselves: 1 + floor(30 u^2), u from a golden-ratio sequence.
    """
    u = (i * 2654435761 % 2**32) / 2**32
    return 1 + min(LONGEST - 1, int(LONGEST * u * u))


# -- model


def build(options):
    config = json.loads((options.model / "config.json").read_text())
    dtype = getattr(torch, options.dtype)
    if options.weights == "file":
        model = Blip2ForConditionalGeneration.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa")
        return model.to(options.device, dtype).eval()
    with torch.device(options.device):
        previous = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # never twice the memory
        try:
            model = Blip2ForConditionalGeneration._from_config(Blip2Config.from_dict(config), dtype=dtype,
                                                               attn_implementation="sdpa")
        finally:
            torch.set_default_dtype(previous)
    model = model.to(options.device, dtype)  # the library keeps the Q-Former in fp32 otherwise
    path = options.model / "generation_config.json"
    if path.exists():
        model.generation_config = model.language_model.generation_config = transformers.GenerationConfig.from_dict(
            json.loads(path.read_text())
        )
    fill(model, config)
    return model.eval()


@torch.no_grad()
def fill(model, config):
    """Values as make_checkpoint.py writes them; a tensor that it does not know of is a mistake here."""
    wanted = {name: (mean, std) for name, _, mean, std in make_checkpoint.tensors(config)}
    generator = torch.Generator(model.device).manual_seed(1)
    seen = set()
    for name, p in model.named_parameters():
        name = name.removeprefix("model.").replace("language_model.encoder.embed_tokens", "language_model.shared")
        if name not in wanted:
            raise SystemExit(
                f"hf_blip2.py: transformers {transformers.__version__} has a parameter {name} that make_checkpoint.py"
                " does not write"
            )
        p.normal_(*wanted[name], generator=generator)
        seen.add(name)
    lacks = set(wanted) - seen - {"language_model.lm_head.weight"}  # which some versions tie to the embedding
    if lacks:
        raise SystemExit(f"hf_blip2.py: transformers {transformers.__version__} lacks {sorted(lacks)[:3]}")


class Ends(LogitsProcessor):
    """Each row ends exactly at its length."""

    def __init__(self, lengths, eos):
        self.lengths, self.eos, self.n = lengths, eos, 0

    def __call__(self, _, scores):
        self.n += 1
        scores[:, self.eos] = torch.where(self.lengths <= self.n, 1e4, -torch.inf).to(scores.dtype)
        return scores


class Job:
    """One part at one batch size: run() gives how many images and tokens it did; flop is that of one run, as far as it
    is products."""

    def __init__(self, server, part, batch):
        self.server, self.batch = server, batch
        m, c = server.model, server.model.config
        v, like = c.vision_config, {"device": server.device, "dtype": server.dtype}
        tokens = (v.image_size // v.patch_size) ** 2 + 1
        self.n_run = 0
        if part == "encoder" or part.startswith("chain"):
            self.pixels = torch.randn(batch, 3, v.image_size, v.image_size, **like)
        if part == "qformer":
            self.features = torch.randn(batch, tokens, v.hidden_size, **like)
            self.queries = m.query_tokens.expand(batch, -1, -1)
            self.mask = torch.ones(batch, tokens, dtype=torch.long, device=server.device)
        if part in ("llm", "natural", "beams"):
            width = c.text_config.hidden_size
            self.embeds = 0.02 * torch.randn(batch, c.num_query_tokens + 1, width, **like)
            self.mask = torch.ones(batch, c.num_query_tokens + 1, dtype=torch.long, device=server.device)
        self.run = {"encoder": self.encoder, "qformer": self.qformer}.get(part, lambda: self.generate(part))

    def encoder(self):
        self.server.vision(self.pixels)
        return self.batch, 0

    def qformer(self):
        m = self.server.model
        out = m.qformer(
            query_embeds=self.queries, encoder_hidden_states=self.features, encoder_attention_mask=self.mask,
            return_dict=True,
        )
        m.language_projection(out.last_hidden_state)
        return self.batch, 0

    def generate(self, part):
        model, n, how = (
            self.server.model,
            self.server.options.max_new,
            {"do_sample": False, "num_beams": 1, "use_cache": True},
        )
        tokens = self.batch * n
        if part.endswith("natural"):
            eos = model.language_model.generation_config.eos_token_id
            lengths = [natural_length(self.n_run * self.batch + i) for i in range(self.batch)]
            ends = Ends(torch.tensor(lengths, device=self.server.device), eos[0] if isinstance(eos, list) else eos)
            how.update(max_new_tokens=LONGEST, logits_processor=LogitsProcessorList([ends]))
            tokens = sum(lengths)
        else:
            how.update(max_new_tokens=n, min_new_tokens=n, num_beams=5 if part.endswith("beams") else 1)
        self.n_run += 1
        if part.startswith("chain"):
            out = model.generate(pixel_values=self.pixels, **how)
        else:
            out = model.language_model.generate(inputs_embeds=self.embeds, attention_mask=self.mask, **how)
        assert out.shape[0] == self.batch
        return self.batch, tokens


# -- what the machine gives: the encoder's products, attention and a copy, through torch


class Machine:
    def __init__(self, server, part, batch):
        v, like = server.model.config.vision_config, {"device": server.device, "dtype": server.dtype}
        self.batch, self.part = batch, part
        rows, w, f = batch * ((v.image_size // v.patch_size) ** 2 + 1), v.hidden_size, v.intermediate_size
        self.flop = self.bytes = 0
        if part in ("products", "products-fp8"):
            shapes = [(3 * w, w), (w, w), (f, w), (w, f)]
            self.flop = sum(2 * rows * n * k for n, k in shapes)
            fp8 = part.endswith("fp8")
            make = lambda r, k, std: (
                self.round(std * torch.randn(r, k, **like)) if fp8 else (std * torch.randn(r, k, **like), None)
            )
            self.pairs = [(make(rows, k, 1), make(n, k, k**-0.5)) for n, k in shapes]
            self.run = self.products_fp8 if fp8 else self.products
        elif part == "attention":
            heads = v.num_attention_heads
            self.qkv = [torch.randn(batch, heads, rows // batch, w // heads, **like) for _ in range(3)]
            self.flop = 4 * batch * (rows // batch) ** 2 * w
            self.run = self.attention
        else:
            self.a = torch.randn(1 << 28 if server.device.startswith("cuda") else 1 << 20, **like)
            self.b = torch.empty_like(self.a)
            self.bytes = 2 * self.a.numel() * self.a.element_size()
            self.run = self.copy

    @staticmethod
    def round(x):
        scale = x.abs().amax(1, keepdim=True).float() / 448
        return (x / scale).to(torch.float8_e4m3fn), scale

    def products(self):
        for (x, _), (w, _) in self.pairs:
            torch.mm(x, w.t())
        return self.batch, 0

    def products_fp8(self):
        for (x, sx), (w, sw) in self.pairs:
            torch._scaled_mm(x, w.t(), scale_a=sx, scale_b=sw.t(), out_dtype=torch.bfloat16, use_fast_accum=True)
        return self.batch, 0

    def attention(self):
        torch.nn.functional.scaled_dot_product_attention(*self.qkv)
        return self.batch, 0

    def copy(self):
        self.b.copy_(self.a)
        return self.batch, 0


# -- measuring

PARTS = ("encoder", "qformer", "llm", "natural", "beams", "chain", "chain-natural", "chain-beams")
MACHINE = ("products", "products-fp8", "attention", "copy")


class Server:
    def __init__(self, options):
        self.options, self.device, self.dtype = options, options.device, getattr(torch, options.dtype)
        start = time.perf_counter()
        self.model = build(options)
        self.vision = torch.compile(self.model.vision_model) if options.compile else self.model.vision_model
        self.sync()
        self.load_s = time.perf_counter() - start

    def about(self):
        name = torch.cuda.get_device_name() if self.device.startswith("cuda") else "cpu"
        return {
            "who": "hf", "dtype": self.options.dtype, "device": name,
            "model": str(self.options.model.resolve()),
            "versions": f"transformers {transformers.__version__}, torch {torch.__version__}",
        }

    def sync(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def close(self):
        gc.collect()  # a job's run() holds the job
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def measure(self, part, batch, seconds):
        job = (Machine if part in MACHINE else Job)(self, part, batch)
        job.run()
        self.sync()
        images = tokens = runs = 0
        start = time.perf_counter()
        while True:
            n, t = job.run()
            images, tokens, runs = images + n, tokens + t, runs + 1
            if runs % 2 == 0 or part not in (
                "encoder", "qformer", *MACHINE,
            ):  # the device always has something to do, and not too much
                self.sync()
            took = time.perf_counter() - start
            if took >= seconds:
                self.sync()
                took = time.perf_counter() - start
                break
        r = {
            **self.about(), "part": part, "batch": batch, "seconds": round(took, 3), "runs": runs,
            "ms": 1e3 * took / runs,
        }
        if part not in MACHINE:
            r.update(
                images=images,
                images_per_s=images / took,
                **({"tokens": tokens, "tokens_per_s": tokens / took} if tokens else {}),
            )
        elif job.flop:
            r["tflops"] = job.flop * runs / took / 1e12
        else:
            r["gb_per_s"] = job.bytes * runs / took / 1e9
        return r

    def answer(self, part, batch, seconds):
        try:
            return self.measure(part, batch, seconds)
        except Exception as e:  # out of memory among them; the next part may do
            return {**self.about(), "part": part, "batch": batch, "error": str(e).split("\n", maxsplit=1)[0]}
        finally:
            self.close()


def serve(server):
    print(json.dumps({**server.about(), "part": "load", "seconds": round(server.load_s, 2)}), flush=True)
    for line in sys.stdin:
        c = json.loads(line)
        if c["part"] == "close":
            server.close()
            print(json.dumps({**server.about(), "part": "close"}), flush=True)
        else:
            print(json.dumps(server.answer(c["part"], c["batch"], c["seconds"])), flush=True)


def parse():
    p = argparse.ArgumentParser(description="Hugging Face transformers' BLIP-2 on a GPU, as a yardstick.")
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("--device", default="cuda")
    p.add_argument("--dtype", default="bfloat16")
    p.add_argument("--weights", choices=("random", "file"), default="random")
    p.add_argument(
        "--parts", type=lambda text: text.split(","), default=["encoder", "qformer", "llm", "chain"],
        help=f"of {', '.join(PARTS + MACHINE)}",
    )
    p.add_argument("--batches", type=lambda text: [int(x) for x in text.split(",")], default=[64, 256])
    p.add_argument("--seconds", type=float, default=10, help="of a measurement, at least")
    p.add_argument("--max-new", type=int, default=20)
    p.add_argument("--threads", type=int, help="on the CPU")
    p.add_argument("--compile", action="store_true", help="the vision tower through torch.compile")
    p.add_argument("--json", type=pathlib.Path, help="append the objects to this file as well")
    p.add_argument("--serve", action="store_true")
    return p.parse_args()


def main():
    options = parse()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "hf_blip2.py: skipped, no GPU here (torch.cuda.is_available() says no); --device cpu tries it out",
            file=sys.stderr,
        )
        return 77
    if options.threads:
        torch.set_num_threads(options.threads)
    server = Server(options)
    if options.serve:
        serve(server)
        return 0
    for part in options.parts:
        for batch in options.batches:
            line = json.dumps(server.answer(part, batch, options.seconds))
            print(line, flush=True)
            if options.json:
                with options.json.open("a", encoding="utf-8") as f:
                    f.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
