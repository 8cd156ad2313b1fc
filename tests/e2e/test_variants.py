"""Edited and re-saved checkpoints: the numbers of transformers, or a refusal by name (tests/golden/make_variants.py,
which also has many more of them)."""

import json

import pytest
import variants
from harness import BUILD

ROWS = json.loads(variants.TABLE.read_text())


@pytest.fixture(scope="module")
def bases(made_once):
    def make(folder):
        for name in variants.BASES:
            variants.write_base(name, folder / name)
    folder = made_once("bases", make)
    return {name: folder / name for name in variants.BASES}


@pytest.mark.parametrize("group", sorted({r["group"] for r in ROWS}))
def test_equal_or_refused_by_name(group, folder, bases):
    for row in (r for r in ROWS if r["group"] == group):
        words = f"{row['base']}: {row['name']}"
        model = variants.apply(bases[row["base"]], row["edits"], folder / "variant")
        done = variants.dry_run(BUILD / "blipline", model)
        if row["outcome"] in ("refused", "both refuse"):
            assert done.returncode == 1 and variants.reason(done, model) == row["says"], words
            continue
        assert done.returncode == 0, f"{words}: {done.stderr}"
        if "expected" in row:
            assert not variants.differences(BUILD / "blipline", model, variants.TABLE.parent / row["expected"],
                                            variants.GOLDEN / "images_odd"), words
