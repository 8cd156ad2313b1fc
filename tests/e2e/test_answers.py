"""Beams, questions, scores, embeddings and filters through the command, against what the reference answered."""

import json
import os
import shutil
import signal
import struct

import numpy
import pytest
from harness import (
    ANSWERS, IMAGES, MODEL, PICTURES, ROOT, Caption, Client, Cluster, blipline, caption, demo_nodes, export,
    many, wait_for,
)
from proto import wire_pb2

SCORER = ROOT / "models" / "blip2-itm-demo"
GOLDEN = ROOT / "tests" / "golden"
ODD = GOLDEN / "images_odd"


def write_list(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"@{path}"


def demo_rows(**columns):
    """A list of the example pictures; each column is a function of the reference's answers for the picture."""
    return [
        {"path": str(IMAGES / name), "key": name, **{c: f(answer) for c, f in columns.items()}}
        for name, answer in ANSWERS.items()
    ]


def tensors(path):
    """A .safetensors file of F32 tensors."""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    return {
        name: numpy.frombuffer(data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]], "<f4").reshape(
            t["shape"]
        )
        for name, t in head.items()
        if name != "__metadata__"
    }


def captions_of(row):
    return row["captions"] if "captions" in row else [row]


@pytest.fixture(scope="module")
def scored(made_once):
    """Three beams, scored in the same job, beside a text that came with the picture."""
    def make(folder):
        source = write_list(folder / "list.jsonl", demo_rows(caption=lambda a: a["score_texts"][1]))
        caption(
            source, folder / "s", "--score-model", SCORER, "--score", "--text-field", "caption", "--beams",
            "5", "--captions", "3", "--max-new-tokens", "24", "--embed", "itc", "--embed", "itc_text",
        )
    return made_once("scored", make) / "s"


def test_five_beams_write_what_the_reference_writes(folder):
    caption(IMAGES, folder / "s", "--beams", "5", "--max-new-tokens", "24")
    rows, _ = export(folder / "s")
    assert {r["key"]: r["caption"] for r in rows} == {name: a["beam5"] for name, a in ANSWERS.items()}


def test_all_questions_of_a_picture_are_answered_in_one_pass(folder):
    source = write_list(folder / "vqa.jsonl", demo_rows(question=lambda a: [q for q, _, _ in a["vqa"]]))
    done = caption(source, folder / "s", "--question", "{question}", "--max-new-tokens", "24", "--json")
    rows, _ = export(folder / "s")
    assert {r["key"]: [c["caption"] for c in captions_of(r)] for r in rows} == {
        name: [answer for _, _, answer in a["vqa"]] for name, a in ANSWERS.items()
    }
    assert captions_of(rows[0])[0]["prompt"] == f"Question: {ANSWERS[rows[0]['key']]['vqa'][0][0]} Answer:"
    assert [s["items"] for s in json.loads(done.stdout)["stages"]] == [24, 24, 24]


def test_given_texts_score_as_the_reference_says(folder):
    source = write_list(folder / "texts.jsonl", demo_rows(text=lambda a: a["score_texts"]))
    blipline("score", source, "-o", folder / "s", "--model", SCORER, "--text-field", "text")
    rows, _ = export(folder / "s")
    for row in rows:
        answer = ANSWERS[row["key"]]
        assert [c["caption"] for c in row["captions"]] == answer["score_texts"] and all(
            c["given"] for c in row["captions"]
        )
        assert numpy.allclose([c["itc"] for c in row["captions"]], answer["itc"], rtol=0, atol=1e-3)
        assert numpy.allclose([c["itm"] for c in row["captions"]], answer["itm"], rtol=0, atol=1e-3)


@pytest.mark.every_level
def test_captions_score_in_their_own_job_as_in_another(folder, scored):
    rows, _ = export(scored)
    texts = {r["key"]: [c["caption"] for c in r["captions"]] for r in rows}
    assert all(len(t) == 4 for t in texts.values())
    source = write_list(folder / "again.jsonl",
                        [{"path": str(IMAGES / key), "key": key, "text": t} for key, t in texts.items()])
    blipline("score", source, "-o", folder / "s", "--model", SCORER, "--text-field", "text")
    again = {r["key"]: [(c["itc"], c["itm"]) for c in r["captions"]] for r in export(folder / "s")[0]}
    assert again == {r["key"]: [(c["itc"], c["itm"]) for c in r["captions"]] for r in rows}


def test_embeddings_are_arrays_that_give_the_scores_again(folder, scored):
    blipline("export", scored, "--embedding", "itc", "-o", folder / "itc.npy")
    blipline("export", scored, "--embedding", "itc_text", "-o", folder / "texts.npy")
    images, texts = numpy.load(folder / "itc.npy"), numpy.load(folder / "texts.npy")
    assert images.shape == (24, 16, 64) and texts.shape == (96, 64) and images.dtype == numpy.float32
    assert numpy.allclose(numpy.linalg.norm(texts, axis=-1), 1, atol=1e-5)
    keys = [json.loads(line) for line in (folder / "texts.keys.jsonl").read_text().splitlines()]
    assert [k["row"] for k in keys] == list(range(96))
    for k in keys:
        assert abs((images[k["item"]] @ texts[k["row"]]).max() - k["itc"]) < 1e-5
    assert not list(folder.glob("*.npy.*")), "a temporary file was left"


def test_filters_choose_from_stored_scores(scored):
    def rows(*options):
        done = blipline("export", scored, *options)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr
    everything = {r["key"]: r["captions"] for r in rows()[0]}
    best, said = rows("--best-of", "itm")
    assert {r["key"]: r["caption"] for r in best} == {key: max(c, key=lambda x: x["itm"])["caption"] for key,
                                                      c in everything.items()}
    assert "24 of 96 captions kept" in said
    strict, said = rows("--min-itm", "0.9", "--texts", "given")
    assert {r["key"] for r in strict} == {key for key, c in everything.items() if c[3]["itm"] >= 0.9}
    flat, _ = rows("--min-itc", "0.5", "--flat")
    assert len(flat) == sum(x["itc"] >= 0.5 for c in everything.values() for x in c) and all(
        "captions" not in r for r in flat
    )
    done = blipline("export", scored, "--best-of", "loudest", check=False)
    assert done.returncode == 2 and "itm itc logprob" in done.stderr


def test_filters_need_the_scores_that_they_compare(folder):
    caption(IMAGES, folder / "s", "--limit", "2")
    done = blipline("export", folder / "s", "--min-itm", "0.5", check=False)
    assert done.returncode == 1 and "ITM" in done.stderr and "recipe" in done.stderr


SAMPLING = (
    "--sample", "--captions", "4", "--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--seed", "7",
    "--prompt", "a photo of", "--prompt", "{key}:",
)


@pytest.mark.every_level
def test_samples_do_not_depend_on_how_the_work_is_cut(folder):
    caption(IMAGES, folder / "one", *SAMPLING)
    rows, reference = export(folder / "one")
    texts = [c["caption"] for r in rows for c in r["captions"]]
    assert len(texts) == 24 * 8 and len(set(texts)) > 40  # they are samples
    for n, options in enumerate(
        (["--unit", "1"], ["--unit", "5", "--threads", "1"], ["--unit", "64", "--threads", "2"])
    ):
        caption(IMAGES, folder / f"s{n}", *SAMPLING, *options)
        assert export(folder / f"s{n}")[1] == reference, options
    caption(IMAGES, folder / "other", *SAMPLING, "--seed", "8")
    assert export(folder / "other")[1] != reference


def sampled_by(folder, workers):
    """The export of a sampling job, done by these daemons for a client nobody here wrote."""
    folder.mkdir()
    with Cluster(folder) as cluster:
        for i, role in enumerate(workers):
            cluster.start(role, f"{role}{i}", threads=1)
        client = Client(cluster.endpoint)
        client.hello()
        decode = wire_pb2.Decode(
            max_new_tokens=12, n_beams=1, n_return=3, length_penalty=1, repetition_penalty=1.1, sample=True,
            temperature=1.5, top_p=0.95, seed=3,
        )
        client.open(folder / "s", demo_nodes(), unit_items=2, decode=decode, prompts=[b"a photo of", b"{key}:"])
        client.add([(p.name.encode(), os.fsencode(p)) for p in PICTURES])
        client.seal()
        client.wait_done(120)
        client.close()
    return export(folder / "s")[1]


@pytest.mark.every_level
def test_samples_do_not_depend_on_the_number_of_workers(folder):
    one = sampled_by(folder / "one", ["encoder", "qformer", "llm"])
    assert len({c["caption"] for row in map(json.loads, one.splitlines()) for c in row["captions"]}) > 40
    assert sampled_by(folder / "many", ["llm", "qformer", "encoder", "llm", "qformer", "encoder"]) == one


@pytest.mark.every_level
def test_samples_survive_a_kill_and_beams_do_too(folder):
    pictures = many(folder / "in", 2)
    for name, options in {"samples": SAMPLING, "beams": ("--beams", "5", "--captions", "5")}.items():
        caption(pictures, folder / f"{name}-whole", *options)
        run = Caption(pictures, folder / name, *options)
        daemons = run.at_least(10).roles().values()
        run.process.send_signal(signal.SIGKILL)
        run.process.communicate()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in daemons))
        caption(pictures, folder / name, *options)
        assert export(folder / name)[1] == export(folder / f"{name}-whole")[1]


def test_captioner_and_scorer_share_the_trunk_exactly_when_it_is_the_same(folder):
    """opt_c and itm_c differ in post_layernorm alone; the demo captioner has other pixels and another trunk."""
    c, itm, other = GOLDEN / "opt_c", GOLDEN / "itm_c", MODEL
    for model, n_encoders in ((c, 1), (other, 2)):
        options = ("--max-new-tokens", "6", "--captions", "2", "--beams", "2")
        store, alone, scores = (folder / f"{model.name}-{x}" for x in ("both", "alone", "scores"))
        done = blipline(
            "caption", ODD, "-o", store, "--model", model, "--score-model", itm, "--score", *options,
            "--json", check=False,
        )
        assert done.returncode in (0, 3), done.stderr
        assert sum("encode" in s["stage"] for s in json.loads(done.stdout)["stages"]) == n_encoders
        rows = [r for r in export(store)[0] if "error" not in r]
        assert len(rows) > 10
        blipline("caption", ODD, "-o", alone, "--model", model, *options, check=False)
        assert {r["key"]: [x["caption"] for x in r["captions"]] for r in export(alone)[0] if "error" not in r} == {
            r["key"]: [x["caption"] for x in r["captions"]] for r in rows}
        source = write_list(
            folder / f"{model.name}.jsonl",
            [
                {"path": str(ODD / r["key"]), "key": r["key"], "text": [x["caption"] for x in r["captions"]]}
                for r in rows
                if all(x["caption"] for x in r["captions"])
            ],
        )
        blipline(
            "score", source, "-o", scores, "--model", itm, "--text-field", "text", check=False
        )  # a random model may write words without tokens
        mine = {r["key"]: r["captions"] for r in rows}
        scored = [r for r in export(scores)[0] if "error" not in r]
        assert len(scored) > 10
        for r in scored:
            for a, b in zip(r["captions"], mine[r["key"]]):
                assert (a.get("itc"), a.get("itm")) == (b.get("itc"), b.get("itm")), r["key"]


def test_retrieval_embeddings_equal_the_golden_ones(folder):
    expected, names = tensors(GOLDEN / "itm_c" / "expected.safetensors"), json.loads(
        (GOLDEN / "itm_c" / "expected.json").read_text()
    )
    source = write_list(folder / "l.jsonl",
                        [{"path": str(ODD / n), "key": n, "text": names["texts"]} for n in names["images"]])
    blipline(
        "score", source, "-o", folder / "s", "--model", GOLDEN / "itm_c", "--text-field", "text", "--embed",
        "itc", "--embed", "query", "--embed", "itc_text", "--embed", "cls:fp16",
    )
    want = {
        "itc": expected["itc_image_embeds"], "query": expected["qformer_last_hidden_state"],
        "cls": expected["vision_last_hidden_state"][:, 0],
        "itc_text": numpy.concatenate([expected["itc_text_embeds"]] * 4),
    }
    for kind, array in want.items():
        blipline("export", folder / "s", "--embedding", kind, "-o", folder / f"{kind}.npy")
        got = numpy.load(folder / f"{kind}.npy")
        assert got.shape == array.shape
        assert numpy.linalg.norm(got.astype("f4") - array) <= (1e-3 if kind == "cls" else 1e-5) * numpy.linalg.norm(
            array
        ), kind
    itc = numpy.array([[c["itc"] for c in r["captions"]] for r in export(folder / "s")[0]])
    assert numpy.allclose(itc, expected["itc_similarity"], atol=1e-5)


def test_flan_t5_writes_captions(folder):
    blipline(
        "caption", ODD, "-o", folder / "s", "--model", GOLDEN / "t5_a", "--beams", "5", "--max-new-tokens",
        "14", check=False,
    )
    rows = {r["key"]: r for r in export(folder / "s")[0]}
    expected = json.loads((GOLDEN / "t5_a" / "expected.json").read_text())
    row = next(g for g in expected["generate"] if g["prompt"] is None and g["options"] == {"num_beams": 5})
    for name, score in zip(expected["images"], row["sequences_scores"]):
        assert abs(rows[name]["score"] - score) <= 1e-3 * abs(score)


def test_scorer_and_captioner_are_not_taken_for_each_other(folder):
    done = blipline("caption", IMAGES, "-o", folder / "a", "--model", SCORER, check=False)
    assert done.returncode != 0 and "retrieval" in done.stderr and not (folder / "a").exists()
    done = caption(IMAGES, folder / "b", "--score-model", MODEL, "--score", check=False)
    assert done.returncode != 0 and "retrieval" in done.stderr and not (folder / "b").exists()
    done = caption(IMAGES, folder / "c", "--score", check=False)
    assert done.returncode != 0 and "--score-model" in done.stderr


def test_the_impossible_is_refused_before_any_work(folder):
    for options, words in (
        (("--beams", "64", "--model", str(GOLDEN / "t5_a")), None),
        (("--beams", "0"), "beams"),
        (("--beams", "2", "--captions", "3"), "captions"),
        (("--prompt", "{colour} of"), "colour"),
        (("--prompt", "{"), "{"),
        (("--sample", "--beams", "3"), "beams"),
        (("--top-p", "0"), "top"),
        (("--prompt", "word " * 200), "positions"),
    ):
        if words:
            done = caption(IMAGES, folder / "s", *options, check=False)
            assert done.returncode in (1, 2) and words in done.stderr, (options, done.stderr)
        assert not (folder / "s").exists(), options


def test_a_field_that_a_row_lacks_is_that_rows_error(folder):
    rows = demo_rows(question=lambda a: a["vqa"][0][0])[:4]
    del rows[2]["question"]
    done = caption(write_list(folder / "l.jsonl", rows), folder / "s", "--question", "{question}", check=False)
    got, _ = export(folder / "s")
    assert done.returncode == 3 and [("error" in r) for r in got] == [False, False, True, False]
    assert got[2]["error"]["code"] == "missing_field" and "question" in got[2]["error"]["message"]


def test_texts_without_tokens_are_item_errors(folder):
    rows = demo_rows(text=lambda a: a["score_texts"][0])[:3]
    rows[1]["text"] = "  "
    blipline(
        "score", write_list(folder / "l.jsonl", rows), "-o", folder / "s", "--model", SCORER, "--text-field",
        "text", check=False,
    )
    got, _ = export(folder / "s")
    assert got[1]["error"]["code"] == "empty_text" and "itm" in got[0] and "itm" in got[2]


def test_bf16_writes_nearly_the_same_captions(folder):
    done = caption(IMAGES, folder / "s", "--dtype", "bf16", "--max-new-tokens", "24", "--unit", "3", check=False)
    if "AVX512" in done.stderr:
        pytest.skip(done.stderr.strip())
    rows, _ = export(folder / "s")
    assert done.returncode == 0 and sum(r["caption"] == ANSWERS[r["key"]]["greedy"] for r in rows) >= 22


def test_a_blank_text_among_others_stays_unscored(folder):
    rows = demo_rows(text=lambda a: [a["score_texts"][0], " ", a["score_texts"][1]])[:2]
    blipline("score", write_list(folder / "l.jsonl", rows), "-o", folder / "s", "--model", SCORER, "--text-field",
             "text")
    assert [["itm" in c for c in r["captions"]] for r in export(folder / "s")[0]] == [[True, False, True]] * 2


def test_the_tokenizer_of_another_checkpoint_is_refused(folder):
    for model, other, kind in ((MODEL, SCORER, "BPE"), (SCORER, MODEL, "WordPiece")):
        mixed = folder / model.name
        shutil.copytree(model, mixed)
        shutil.copyfile(other / "tokenizer.json", mixed / "tokenizer.json")
        if model is MODEL:
            done = blipline("caption", IMAGES, "-o", folder / "s", "--model", mixed, check=False)
        else:
            done = blipline(
                "score",
                write_list(folder / "l.jsonl", demo_rows(text=lambda a: "a pig")),
                "-o", folder / "s", "--model", mixed, "--text-field", "text", check=False,
            )
        assert (
            done.returncode == 1
            and f"have {kind}" in done.stderr
            and "tokenizer.json" in done.stderr
            and not (folder / "s").exists()
        )


def test_a_file_whose_keys_are_of_no_picture_is_refused(folder):
    (folder / "texts.jsonl").write_text('{"key": "photos/scene_0000.webp", "caption": "a cat"}\n')
    done = blipline(
        "score", IMAGES, "-o", folder / "s", "--model", SCORER, "--join", folder / "texts.jsonl",
        "--text-field", "caption", check=False,
    )
    assert done.returncode == 1 and not (folder / "s").exists()
    assert (
        "texts.jsonl: no row has the key of a picture" in done.stderr
        and "like scene_0000.webp, rows like photos/scene_0000.webp" in done.stderr
    )


def test_texts_of_a_file_are_joined_by_key(folder):
    rows = [{"key": name, "text": text} for name, a in ANSWERS.items() for text in a["score_texts"]]
    write_list(folder / "texts.jsonl", rows[:-3])  # the last picture has none
    done = blipline(
        "score", IMAGES, "-o", folder / "s", "--model", SCORER, "--join", folder / "texts.jsonl",
        "--text-field", "text", check=False,
    )
    got, _ = export(folder / "s")
    assert done.returncode == 3 and "1 picture without a row" in done.stderr
    assert [r.get("error", {}).get("code") for r in got] == [None] * 23 + ["no_text"]
    for r in got[:23]:
        assert [c["caption"] for c in r["captions"]] == ANSWERS[r["key"]]["score_texts"]
        assert numpy.allclose([c["itm"] for c in r["captions"]], ANSWERS[r["key"]]["itm"], rtol=0, atol=1e-3)
    (folder / "broken.csv").write_text("key,text\n" + "a.jpg,x\n" * 5 + '"b,y\n')
    done = blipline(
        "score", IMAGES, "-o", folder / "t", "--model", SCORER, "--join", folder / "broken.csv",
        "--text-field", "text", check=False,
    )
    assert (
        done.returncode in (1, 2)
        and "broken.csv" in done.stderr
        and "line 7" in done.stderr
        and not (folder / "t").exists()
    )
    (folder / "list.txt").write_text("a.jpg\n")
    done = blipline(
        "score", IMAGES, "-o", folder / "u", "--model", SCORER, "--join", folder / "list.txt", "--text-field",
        "text", check=False,
    )
    assert done.returncode in (1, 2) and "--join" in done.stderr
