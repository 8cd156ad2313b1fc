"""A store is never burnt: failures can be mended and tried again, and a source that vanishes for a moment costs
nothing."""

import json
import os
import shutil
import signal

import pytest
from harness import (ANSWERS, PICTURES, Caption, answer_for, blipline, caption, children, export, many, store_rows,
                     wait_for)

GOOD = PICTURES[1].read_bytes()  # a JPEG
BAD = GOOD[:2000]


def pictures(folder, n, data=BAD, name="p"):
    """n pictures with the same bytes."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        (folder / f"{name}{i:03d}.jpg").write_bytes(data)
    return folder


def errors(store):
    return {r["key"]: r["error"]["code"] for r in export(store)[0] if "error" in r}


def summary(done):
    return json.loads(done.stdout)


def is_as_a_fresh_run(source, store, fresh):
    caption(source, fresh)
    assert export(store)[1] == export(fresh)[1]
    assert "sound" in blipline("verify", store).stdout


def test_a_folder_that_vanishes_pauses_the_job_and_costs_nothing(folder):
    here, away = many(folder / "here", 1), many(folder / "away", 3)
    run = Caption(here, folder / "s", away, "--unit", "4", "--json")
    try:
        encoder = wait_for(
            lambda: run.roles().get("broker") and run.roles().get("encoder"), 30
        )  # not the one that checks the command line
        os.kill(encoder, signal.SIGSTOP)  # it has read nothing yet
        run.process.poll()
        away.rename(folder / "gone")
        os.kill(encoder, signal.SIGCONT)
        code, out, err = run.end()
    finally:
        run.kill()
    assert code == 1, err
    assert (
        "in a row failed" in err and "missing" in err and str(away) in err and "run the same command again" in err
    ), err
    assert json.loads(out)["complete"] is False and "missing" in json.loads(out)["paused"]
    rows, _ = export(folder / "s")
    assert len([r for r in rows if "caption" in r]) == 24 and errors(folder / "s") == {}, rows
    (folder / "gone").rename(away)
    done = caption([here, away], folder / "s", "--json")
    assert summary(done)["failed"] == 0 and summary(done)["this_run"] == 72, done
    is_as_a_fresh_run([here, away], folder / "s", folder / "fresh")


def test_many_bad_pictures_in_a_row_pause_unless_they_are_allowed(folder):
    source = pictures(folder / "in", 60)
    pictures(source, 3, GOOD, "a")
    done = caption(source, folder / "s", check=False)
    assert done.returncode == 1 and "60 truncated" in done.stderr and "--max-failures" in done.stderr, done.stderr
    assert errors(folder / "s") == {}
    done = caption(source, folder / "s", "--max-failures", "61", check=False)
    assert done.returncode == 3, done.stderr
    assert set(errors(folder / "s").values()) == {"truncated"} and len(errors(folder / "s")) == 60
    done = caption(source, folder / "s", check=False)  # their bytes are what they are: not tried again unasked
    assert done.returncode == 3 and "nothing to do" in done.stderr, done.stderr


def test_a_share_of_failures_pauses_too(folder):
    source = pictures(folder / "in", 110)
    pictures(source, 10, GOOD, "a")
    done = caption(source, folder / "s", "--max-failures", "75.5%", check=False)
    assert done.returncode == 1 and " items failed (in this run: " in done.stderr, done.stderr
    assert (
        len(errors(folder / "s")) <= 15 and "except the oldest (--retry" in done.stderr
    ), done.stderr  # of the unit with good ones at most
    done = caption(source, folder / "s", "--max-failures", "100%", check=False)
    assert done.returncode == 3 and len(errors(folder / "s")) == 110, done.stderr


def test_mended_pictures_are_tried_again_when_asked(folder):
    source = pictures(folder / "in", 8)
    (source / "empty.jpg").write_bytes(b"")
    (source / "good.jpg").write_bytes(GOOD)
    caption(source, folder / "s", check=False)
    assert len(errors(folder / "s")) == 9
    before = store_rows(folder / "s")
    pictures(source, 5, GOOD)
    done = caption(source, folder / "s", "--retry=truncated", "--dry-run")
    assert ", 8 failed to be tried again, 0 changed" in done.stderr, done.stderr
    done = caption(source, folder / "s", "--retry=truncated,corrupt", "--json", check=False)
    assert (
        done.returncode == 3
        and "8 items that failed are tried again" in done.stderr
        and "--retry=corrupt: no item" in done.stderr
    ), done.stderr
    assert summary(done) | {"done_again": 8, "to_do_again": 0, "failed": 4, "this_run": 8, "complete": True} == summary(
        done
    )
    assert sorted(errors(folder / "s").items()) == [
        ("empty.jpg", "empty"),
        ("p005.jpg", "truncated"),
        ("p006.jpg", "truncated"),
        ("p007.jpg", "truncated"),
    ]
    after = store_rows(folder / "s")
    assert list(before) == list(after) and all(before[i] == after[i] for i in after if not before[i].HasField("error"))
    stats = json.loads(blipline("stats", folder / "s", "--json").stdout)
    assert stats["done_again"] == 8 and stats["to_do_again"] == 0
    pictures(source, 8, GOOD)
    (source / "empty.jpg").write_bytes(GOOD)
    done = caption(source, folder / "s", "--retry")
    assert "4 items that failed are tried again" in done.stderr
    is_as_a_fresh_run(source, folder / "s", folder / "fresh")


def test_what_may_have_passed_is_tried_again_unasked(folder):
    """A list of 60 pictures that are not there: nothing is lost by finding that out once more, so nothing pauses."""
    source, listing = folder / "in", folder / "list.txt"
    pictures(source, 1, GOOD, "a")
    listing.write_text("".join(f"in/p{i:03d}.jpg\n" for i in range(60)) + "in/a000.jpg\n")
    done = caption(f"@{listing}", folder / "s", "--max-failures", "100%", check=False)
    assert done.returncode == 3 and len(errors(folder / "s")) == 60, done.stderr
    done = caption(f"@{listing}", folder / "s", check=False)
    assert done.returncode == 3 and "60 items that failed are tried again" in done.stderr, done.stderr
    pictures(source, 60, GOOD)
    done = caption(f"@{listing}", folder / "s", "--json")
    assert summary(done)["done_again"] == 60 and summary(done)["failed"] == 0
    is_as_a_fresh_run(f"@{listing}", folder / "s", folder / "fresh")


def test_changed_pictures_are_done_again_when_asked(folder):
    source = folder / "in"
    source.mkdir()
    for p in PICTURES[:4]:
        shutil.copy(p, source / p.name)
    caption(source, folder / "s")
    name = PICTURES[2].name
    (source / name).write_bytes(GOOD)
    done = caption(source, folder / "s")
    assert (
        "1 picture changed" in done.stderr and "--refresh" in done.stderr and "nothing to do" in done.stderr
    ), done.stderr
    done = caption(source, folder / "s", "--refresh", "--json")
    assert "1 item that changed is done again" in done.stderr and summary(done)["done_again"] == 1, done.stderr
    assert export(folder / "s")[0][2]["caption"] == ANSWERS[PICTURES[1].name]["greedy"]
    done = caption(source, folder / "s", "--refresh")
    assert "changed" not in done.stderr and "nothing to do" in done.stderr, done.stderr
    is_as_a_fresh_run(source, folder / "s", folder / "fresh")


def test_a_changed_picture_that_cannot_be_read_keeps_its_record(folder):
    source = pictures(folder / "in", 2, GOOD)
    caption(source, folder / "s")
    before = export(folder / "s")[1]
    (source / "p001.jpg").write_bytes(BAD)
    done = caption(source, folder / "s", "--refresh", "--json", check=False)
    assert done.returncode == 3 and "1 item could not be done again; the record stays" in done.stderr, done.stderr
    assert summary(done)["to_do_again"] == 1 and export(folder / "s")[1] == before
    assert (
        "1 to be done again" in blipline("stats", folder / "s").stdout
        and ", 1 to be done again" in blipline("verify", folder / "s").stdout
    )
    shutil.copy(PICTURES[3], source / "p001.jpg")
    caption(source, folder / "s")  # unasked: the store remembers
    is_as_a_fresh_run(source, folder / "s", folder / "fresh")


@pytest.mark.parametrize("whom", ["command", "broker"])
def test_kill_9_in_the_middle_of_trying_again(folder, whom):
    source = pictures(folder / "in", 24)
    caption(source, folder / "s", "--unit", "4", check=False)
    assert len(errors(folder / "s")) == 24
    for i in range(24):
        shutil.copy(PICTURES[i], source / f"p{i:03d}.jpg")
    run = Caption(source, folder / "s", "--retry")
    try:
        def some_captions():
            assert run.process.poll() is None, run.process.communicate()
            return sum(not r.HasField("error") for r in store_rows(folder / "s").values()) >= 4
        wait_for(some_captions, 60, 0.02)
        if whom == "broker":
            run.signal("broker", signal.SIGKILL)
            assert run.end()[0] == 0
        else:
            victims = [run.process.pid, *children(run.process.pid)]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
    finally:
        run.kill()
    assert "sound" in blipline("verify", folder / "s").stdout
    rows, _ = export(folder / "s")
    assert len(rows) == 24 and all(r["caption"] == answer_for(PICTURES[r["item"]].name) for r in rows if "caption" in r)
    if whom == "command":
        assert any("error" in r for r in rows), "the kill came too late"
        caption(source, folder / "s")  # the store remembers what was asked for
    is_as_a_fresh_run(source, folder / "s", folder / "fresh")


def test_options_that_make_no_sense(folder):
    source = pictures(folder / "in", 1, GOOD)
    for option, says in (
        ("--max-failures=many", "neither"),
        ("--max-failures=0", "whole number"),
        ("--max-failures=101%", "100%"),
        ("--max-failures=-3", "neither"),
        ("--max-failures=", "neither"),
        ("--retry=no such", "not a reason"),
        ("--retry=a,,b", "not a reason"),
    ):
        done = caption(source, folder / "s", option, check=False)
        assert done.returncode == 2 and says in done.stderr, (option, done.stderr)
    assert not (folder / "s").exists()
