"""WebP variants: lossy, lossless, alpha, animated, and what the RIFF around them may be like."""
import io
import struct

from PIL import Image

from jpegs import picture
from pngs import exif


def save(im, **options):
    out = io.BytesIO()
    im.save(out, "WEBP", **options)
    return out.getvalue()


def chunk(kind, data, length=None):
    return kind + struct.pack("<I", len(data) if length is None else length) + data + b"\0" * (len(data) & 1)


def riff(body, size=None):
    return b"RIFF" + struct.pack("<I", len(body) + 4 if size is None else size) + b"WEBP" + body


def chunks(webp):
    at = 12
    while at + 8 <= len(webp):
        n = struct.unpack("<I", webp[at + 4:at + 8])[0]
        yield webp[at:at + 4], webp[at + 8:at + 8 + n]
        at += 8 + n + (n & 1)


def see_through(w=37, h=29):
    im = picture(w, h, "RGBA")
    return im


def stills():
    for lossless in (False, True):
        for mode in ("RGB", "RGBA", "L"):
            for quality in (0, 50, 100):
                im = picture(mode=mode)
                yield "%s_%s_q%d" % ("lossless" if lossless else "lossy", mode, quality), save(
                    im, lossless=lossless, quality=quality, exact=quality == 50)
    for w, h in ((1, 1), (2, 3), (16, 16), (17, 33), (64, 1)):
        for lossless in (False, True):
            yield "%s_%dx%d" % ("lossless" if lossless else "lossy", w, h), save(picture(w, h), lossless=lossless)
            yield "%s_alpha_%dx%d" % ("lossless" if lossless else "lossy", w, h), save(
                picture(w, h, "RGBA"), lossless=lossless
            )
    for q in (0, 50, 100):
        yield "alpha_q%d" % q, save(see_through(), alpha_quality=q)
    for method in range(7):
        yield "method%d" % method, save(picture(), method=method)
    transparent = picture(mode="RGBA")
    transparent.putalpha(0)
    yield "all_transparent", save(transparent, lossless=True)
    yield "all_transparent_exact", save(transparent, lossless=True, exact=True)
    yield "palette", save(picture().quantize(8), lossless=True)
    yield "icc", save(picture(), icc_profile=bytes(500))
    yield "xmp", save(picture(), xmp=b"<x tiff:Orientation=\"6\"/>")
    for o in range(1, 9):
        yield "exif%d" % o, save(picture(), exif=exif(o))
        yield "exif%d_bare" % o, save(picture(mode="RGBA"), exif=exif(o, ">")[6:])


def animations():
    frames = [picture(seed=i) for i in range(3)]
    for lossless in (False, True):
        yield "three_%s" % lossless, save(frames[0], save_all=True, append_images=frames[1:], lossless=lossless,
                                          duration=100)
    yield "alpha", save(see_through(), save_all=True, append_images=[picture(mode="RGBA", seed=5)], duration=50)
    yield "one_frame", save(frames[0], save_all=True, append_images=[], duration=50)
    yield "background", save(see_through(), save_all=True, append_images=[picture(mode="RGBA", seed=5)],
                             background=(200, 100, 50, 255))
    yield "kmax1", save(frames[0], save_all=True, append_images=frames[1:], kmin=1, kmax=1, minimize_size=False)

    def frame(im_webp, x, y, w, h, flags=0):
        body = b"".join(chunk(k, d) for k, d in chunks(im_webp) if k in (b"VP8 ", b"VP8L", b"ALPH"))
        return chunk(
            b"ANMF",
            struct.pack("<I", x // 2)[:3]
            + struct.pack("<I", y // 2)[:3]
            + struct.pack("<I", w - 1)[:3]
            + struct.pack("<I", h - 1)[:3]
            + struct.pack("<I", 100)[:3]
            + bytes([flags])
            + body,
        )

    def canvas(w, h, flags=0x02):
        return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + struct.pack("<I", w - 1)[:3] + struct.pack("<I", h - 1)[:3])

    anim = chunk(b"ANIM", bytes([10, 20, 30, 255, 0, 0]))
    small, small_lossy = save(picture(10, 8), lossless=True), save(picture(10, 8))
    small_alpha = save(picture(10, 8, "RGBA"), lossless=True)
    lossy_alpha = save(picture(10, 8, "RGBA"))
    for name, one in (
        ("lossless", small),
        ("lossy", small_lossy),
        ("alpha", small_alpha),
        ("lossy_alpha", lossy_alpha),
    ):
        for flags in range(4):
            yield "part_%s_flags%d" % (name, flags), riff(
                canvas(20, 16, 0x12 if "alpha" in name else 2) + anim + frame(one, 4, 6, 10, 8, flags) * 2
            )
    yield "whole_frame", riff(canvas(10, 8) + anim + frame(small, 0, 0, 10, 8))
    yield "frame_outside", riff(canvas(20, 16) + anim + frame(small, 14, 6, 10, 8))
    yield "frame_size_differs", riff(canvas(20, 16) + anim + frame(small, 0, 0, 12, 8))
    yield "no_anim_chunk", riff(canvas(20, 16) + frame(small, 0, 0, 10, 8))
    yield "no_frames", riff(canvas(20, 16) + anim)
    yield "no_animation_flag", riff(canvas(20, 16, 0) + anim + frame(small, 0, 0, 10, 8))
    yield "still_with_flag", riff(canvas(10, 8) + b"".join(chunk(k, d) for k, d in chunks(small)))
    yield "huge_canvas", riff(canvas(16383, 16383) + anim + frame(small, 0, 0, 10, 8))
    yield "wide_canvas", riff(canvas(100000, 100) + anim + frame(small, 0, 0, 10, 8))
    yield "first_frame_damaged", riff(
        canvas(10, 8) + anim + frame(small[:20] + bytes(10) + small[30:], 0, 0, 10, 8) + frame(small, 0, 0, 10, 8)
    )
    yield "second_frame_damaged", riff(
        canvas(10, 8) + anim + frame(small, 0, 0, 10, 8) + frame(small[:20] + bytes(10) + small[30:], 0, 0, 10, 8)
    )
    two = riff(canvas(10, 8) + anim + frame(small, 0, 0, 10, 8) + frame(small_lossy, 0, 0, 10, 8))
    for cut in (1, 3, 10, 40, 120):
        yield "two_cut%d" % cut, two[:-cut]
    yield "trailing", two + b"abc"


def containers():
    for name, data in (("lossy", save(picture(), quality=40)), ("lossless", save(picture(), lossless=True)),
                       ("alpha", save(see_through(), quality=40)), ("exif", save(picture(), exif=exif(6)))):
        n = len(data) - 8
        for what, x in (
            ("trailing_byte", data + b"x"),
            ("trailing_kb", data + bytes(1000)),
            ("leading", b"x" + data),
            ("riff_size_0", data[:4] + bytes(4) + data[8:]),
            ("riff_size_max", data[:4] + b"\xff" * 4 + data[8:]),
            ("riff_size_less", data[:4] + struct.pack("<I", n - 10) + data[8:]),
            ("riff_size_more", data[:4] + struct.pack("<I", n + 10) + data[8:]),
            ("riff_size_odd", data[:4] + struct.pack("<I", n + 1) + data[8:]),
            ("chunk_size_more", data[:16] + struct.pack("<I", n + 999) + data[20:]),
            ("rifx", b"RIFX" + data[4:]),
            ("webq", data[:11] + b"Q" + data[12:]),
            ("no_chunks", data[:12]),
            ("header_only", data[:20]),
            ("head_30", data[:30]),
        ):
            yield "%s_%s" % (name, what), x
        for i in range(1, 12):
            yield "%s_end_cut%d" % (name, i), data[:-i]
            yield "%s_end_cut%d_size" % (name, i), data[:4] + struct.pack("<I", n - i) + data[8:-i]
    lossy = save(picture(), quality=40)
    body = dict(chunks(lossy))[b"VP8 "]
    yield "unknown_chunk_before", riff(chunk(b"ABCD", b"12345") + chunk(b"VP8 ", body))
    yield "unknown_chunk_after", riff(chunk(b"VP8 ", body) + chunk(b"ABCD", b"12345"))
    x = chunk(b"VP8X", bytes([0, 0, 0, 0, 36, 0, 0, 28, 0, 0]))
    yield "extended", riff(x + chunk(b"VP8 ", body))
    yield "extended_unknown", riff(x + chunk(b"ABCD", b"12345") + chunk(b"VP8 ", body) + chunk(b"EFGH", b"1"))
    yield "extended_other_size", riff(chunk(b"VP8X", bytes([0, 0, 0, 0, 40, 0, 0, 28, 0, 0])) + chunk(b"VP8 ", body))
    yield "extended_alone", riff(x)
    yield "extended_short", riff(chunk(b"VP8X", bytes(8)) + chunk(b"VP8 ", body))
    yield "two_images", riff(x + chunk(b"VP8 ", body) * 2)
    yield "alpha_flag_no_alpha", riff(chunk(b"VP8X", bytes([0x10, 0, 0, 0, 36, 0, 0, 28, 0, 0])) + chunk(b"VP8 ", body))
    yield "alpha_chunk_junk", riff(
        chunk(b"VP8X", bytes([0x10, 0, 0, 0, 36, 0, 0, 28, 0, 0]))
        + chunk(b"ALPH", b"\x01junkjunk")
        + chunk(b"VP8 ", body)
    )
    yield "exif_flag_no_exif", riff(chunk(b"VP8X", bytes([8, 0, 0, 0, 36, 0, 0, 28, 0, 0])) + chunk(b"VP8 ", body))
    yield "vp8_bare", body
    for name, at, value in (
        ("key_frame", 0, body[0] | 1),
        ("version7", 0, body[0] | 14),
        ("invisible", 0, body[0] & 0xEF),
        ("start_code", 3, 0),
        ("partition", 1, 0xFF),
        ("scaling", 7, body[7] | 0xC0),
    ):
        yield "vp8_" + name, riff(chunk(b"VP8 ", body[:at] + bytes([value]) + body[at + 1:]))
    lossless = dict(chunks(save(picture(), lossless=True)))[b"VP8L"]
    for name, at, value in (("signature", 0, 0x2e), ("version", 4, lossless[4] | 0xe0), ("size", 1, 3)):
        yield "vp8l_" + name, riff(chunk(b"VP8L", lossless[:at] + bytes([value]) + lossless[at + 1:]))


def variants():
    for family in (stills, animations, containers):
        for name, content in family():
            yield "webp/%s/%s" % (family.__name__, name), content


def to_cut():
    yield "webp/cut/lossy", save(picture(), quality=40)
    yield "webp/cut/lossless", save(picture(20, 9), lossless=True)
    yield "webp/cut/alpha", save(see_through(), quality=30)
    yield "webp/cut/animated", save(picture(20, 9), save_all=True, append_images=[picture(20, 9, seed=6)], duration=9)
