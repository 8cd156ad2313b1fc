"""Picture files through the whole chain: animations, limits, orientation, files that are no pictures."""

from PIL import Image

from harness import ANSWERS, PICTURES, caption, export

PICTURE = PICTURES[1]
GREEDY = ANSWERS[PICTURE.name]["greedy"]


def test_an_animation_is_its_first_frame(folder):
    (folder / "in").mkdir()
    with Image.open(PICTURE) as im:
        first = im.convert("RGB")
    others = [first.rotate(180), first.rotate(90)]
    first.save(folder / "in" / "a.webp", save_all=True, append_images=others, duration=100, lossless=True)
    first.save(folder / "in" / "b.png", save_all=True, append_images=others, duration=100)
    caption(folder / "in", folder / "s")
    rows, _ = export(folder / "s")
    assert [r.get("caption") for r in rows] == [GREEDY, GREEDY], rows


def test_exif_turns_a_picture_when_asked_to(folder):
    (folder / "in").mkdir()
    with Image.open(PICTURE) as im:
        lying = im.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x112] = 6  # to be shown a quarter clockwise
    lying.save(folder / "in" / "a.png", exif=exif)
    lying.save(folder / "in" / "b.webp", exif=exif, lossless=True)
    lying.save(folder / "in" / "c.jpg", exif=exif, quality=100, subsampling=0)
    caption(folder / "in", folder / "s", "--exif-orientation", "apply")
    rows, _ = export(folder / "s")
    assert [r.get("caption") for r in rows] == [GREEDY] * 3, rows
    again = caption(folder / "in", folder / "s", check=False)
    assert again.returncode == 1 and "exif-orientation: ignore, was apply" in again.stderr, again.stderr
    caption(folder / "in", folder / "ignored")
    rows, _ = export(folder / "ignored")
    assert all(r["caption"] != GREEDY for r in rows), rows


def test_what_is_over_a_limit_names_the_option(folder):
    done = caption(PICTURE, folder / "pixels", "--max-pixels", "1000", check=False)
    assert done.returncode == 3, done.stderr
    rows, _ = export(folder / "pixels")
    assert rows[0]["error"] == {"code": "too_many_pixels", "message": "480x640 pixels; --max-pixels is 1000"}, rows
    caption(PICTURE, folder / "bytes", "--max-file-size", "2KiB", check=False)
    rows, _ = export(folder / "bytes")
    assert rows[0]["error"] == {
        "code": "too_large",
        "message": "the file is larger than --max-file-size, which is 2KiB",
    }, rows


def test_a_file_that_is_no_picture_is_named(folder):
    source = folder / "in"
    source.mkdir()
    files = {
        "a.jpg": (b"GIF89a" + bytes(20), "a GIF picture"),
        "b.jpg": (b"<html><body>404</body></html>", "an HTML page"),
        "c.png": (b"\0\0\0\x1cftypavif" + bytes(20), "an AVIF picture"),
        "d.webp": (b"%PDF-1.7\n", "a PDF document"),
    }
    for name, (data, _) in files.items():
        (source / name).write_bytes(data)
    done = caption(source, folder / "s", check=False)
    assert done.returncode == 3, done.stderr
    rows, _ = export(folder / "s")
    assert {r["key"]: r["error"] for r in rows} == {
        name: {"code": "unknown_format", "message": f"the file is {kind}; only JPEG, PNG and WebP are supported"}
        for name, (_, kind) in files.items()
    }
