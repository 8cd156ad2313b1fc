"""JPEG variants: what encoders write, cameras add and transfers damage."""
import io
import random
import struct

from PIL import Image

import pngs
from pngs import exif


def picture(w=37, h=29, mode="RGB", seed=3):
    rows = pngs.samples(w, h, 8, {"L": 0, "RGB": 2, "CMYK": 6, "RGBA": 6}[mode], seed)
    return Image.frombytes(mode, (w, h), b"".join(pngs.pack_row(r, 8) for r in rows))


def save(im, **options):
    out = io.BytesIO()
    im.save(out, "JPEG", **options)
    return out.getvalue()


def segment(marker, data, length=None):
    return bytes([0xff, marker]) + struct.pack(">H", len(data) + 2 if length is None else length) + data


def segments(jpeg):
    """(marker, where it begins, where it ends) up to the first scan's header, which is the last one."""
    at = 2
    while True:
        n = struct.unpack(">H", jpeg[at + 2:at + 4])[0]
        yield jpeg[at + 1], at, at + 2 + n
        if jpeg[at + 1] == 0xda:
            return
        at += 2 + n


def span(jpeg, *markers):
    return next((a, b) for m, a, b in segments(jpeg) if m in markers)


def after_soi(jpeg, data):
    return jpeg[:2] + data + jpeg[2:]


def without(jpeg, *markers):
    for m, a, b in reversed(list(segments(jpeg))):
        if m in markers:
            jpeg = jpeg[:a] + jpeg[b:]
    return jpeg


def patched(jpeg, marker, offset, value):
    """`value` in the place of bytes of a segment, `offset` from its 0xff."""
    a, _ = span(jpeg, *(marker if isinstance(marker, tuple) else (marker,)))
    return jpeg[:a + offset] + value + jpeg[a + offset + len(value):]


SOF = (0xc0, 0xc1, 0xc2)


def encodings():
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            for quality in (1, 30, 75, 100):
                yield "%s_q%d%s" % (mode, quality, "_progressive" if progressive else ""), save(
                    picture(mode=mode), quality=quality, progressive=progressive)
    for name in ("4:4:4", "4:2:2", "4:2:0"):
        for w, h in ((37, 29), (1, 1), (8, 8), (16, 16), (17, 17), (2, 33)):
            for progressive in (False, True):
                yield "%s_%dx%d%s" % (name.replace(":", ""), w, h, "_progressive" if progressive else ""), save(
                    picture(w, h), subsampling=name, quality=85, progressive=progressive)
    yield "optimized", save(picture(), optimize=True)
    for n in (1, 2, 5):
        yield "restart_%d_blocks" % n, save(picture(), restart_marker_blocks=n)
        yield "restart_%d_rows" % n, save(picture(), restart_marker_rows=n, progressive=True)
    yield "rgb_kept", save(picture(), keep_rgb=True)
    yield "rgb_kept_progressive", save(picture(), keep_rgb=True, progressive=True)
    yield "qtables", save(picture(), qtables=[[min(255, 3 + 4 * i) for i in range(64)]] * 2)
    yield "qtables_16bit", save(picture(), qtables=[[300 + i for i in range(64)]] * 2)
    yield "smooth", save(picture(), smooth=50)
    yield "streamtype", save(picture(), streamtype=2)
    for which in ((1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 1), (3, 1), (1, 3)):
        # sampling factors of the first component, written over a file whose chroma has one block where luma has one:
        # the numbers of blocks no longer fit, which shows how each library ends
        yield "sampling_patched_%dx%d" % which, patched(save(picture(), subsampling="4:4:4"), SOF, 11,
                                                       bytes([which[0] << 4 | which[1]]))


def ycck(transform, mode="CMYK", adobe=True):
    data = without(save(picture(mode=mode)), 0xee)
    return after_soi(data, segment(0xee, b"Adobe\0\x64\0\0\0\0" + bytes([transform])) if adobe else b"")


def colours():
    for mode in ("L", "RGB", "CMYK"):
        for transform in (0, 1, 2, 3):
            yield "%s_adobe%d" % (mode, transform), ycck(transform, mode)
        yield "%s_no_adobe" % mode, ycck(0, mode, False)
        bare = without(save(picture(mode=mode)), 0xe0, 0xee)
        yield "%s_bare" % mode, bare
        for ids in (b"\0\1\2\3", b"\1\2\3\4", b"RGBA", b"YCCK", b"\1\1\1\1", b"CMYK"):
            n = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
            x = bare
            for i in range(n):
                x = patched(x, SOF, 10 + 3 * i, ids[i:i + 1])
                x = patched(x, 0xda, 5 + 2 * i, ids[i:i + 1])
            yield "%s_ids_%s" % (mode, ids.hex()), x
            yield "%s_ids_%s_jfif" % (mode, ids.hex()), after_soi(x, segment(0xe0, b"JFIF\0\1\1\0\0\1\0\1\0\0"))
    yield "ycck_progressive", after_soi(without(save(picture(mode="CMYK"), progressive=True), 0xee),
                                        segment(0xee, b"Adobe\0\x64\0\0\0\0\2"))
    yield "icc", save(picture(), icc_profile=bytes(1000))
    yield "icc_many", save(picture(), icc_profile=bytes(200000))
    yield "icc_cmyk", save(picture(mode="CMYK"), icc_profile=bytes(1000))
    for n in (0, 1, 4):
        yield "icc_short%d" % n, after_soi(save(picture()), segment(0xe2, b"ICC_PROFILE\0" + bytes(n)))


def lossless(n):
    """The lossless kind, which no encoder here writes: each sample as its difference from the one before it."""
    w, h = 13, 9
    rows, bits = pngs.samples(w, h, 8, 0 if n == 1 else 2), ""
    for y, row in enumerate(rows):
        for x, pixel in enumerate(row):
            before = row[x - 1] if x else rows[y - 1][0] if y else [128] * n
            for d in (s - p for s, p in zip(pixel, before)):
                size = abs(d).bit_length()
                bits += format(size, "04b") + (
                    format(d if d > 0 else d + (1 << size) - 1, "0%db" % size) if size else ""
                )
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 9]) + bytes(12) + bytes(range(9))  # nine codes of four bits
    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHB", 8, h, w, n) + b"".join(bytes([i, 0x11, 0]) for i in range(n)))
        + segment(0xC4, table)
        + segment(0xDA, bytes([n]) + b"".join(bytes([i, 0]) for i in range(n)) + b"\1\0\0")
        + scan
        + b"\xff\xd9"
    )


def frames():
    for n in (1, 3):
        yield "lossless_%d" % n, lossless(n)
    good = save(picture())
    for bits in (0, 2, 12, 16):
        yield "bits%d" % bits, patched(good, SOF, 4, bytes([bits]))
    for n in (0, 1, 2, 4, 5):
        yield "components%d" % n, patched(good, SOF, 9, bytes([n]))
    for marker in (0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf, 0xde):
        yield "sof_%02x" % marker, patched(good, SOF, 1, bytes([marker]))
    yield "progressive_as_baseline", patched(save(picture(), progressive=True), SOF, 1, b"\xc0")
    for w, h in (
        (0, 29),
        (37, 0),
        (0, 0),
        (65535, 65535),
        (65501, 2),
        (2, 65501),
        (36, 28),
        (40, 32),
        (80, 60),
        (13378, 13377),
    ):
        yield "says_%dx%d" % (w, h), patched(good, SOF, 5, struct.pack(">HH", h, w))
    a, b = span(good, *SOF)
    yield "sof_twice", good[:a] + good[a:b] * 2 + good[b:]
    yield "no_sof", good[:a] + good[b:]
    yield "sof_short", good[:a] + segment(0xc0, good[a + 4:b - 4]) + good[b:]
    yield "sof_long", good[:a] + segment(0xc0, good[a + 4:b] + b"abc") + good[b:]
    for name, marker in (("dqt", 0xdb), ("dht", 0xc4)):
        a, b = span(good, marker)
        yield name + "_missing", without(good, marker)
        yield name + "_short", good[:a] + segment(marker, good[a + 4:b - 9]) + good[b:]
        yield name + "_long", good[:a] + segment(marker, good[a + 4:b] + b"\0\1\2") + good[b:]
        yield name + "_twice", good[:a] + good[a:b] * 2 + good[b:]
        yield name + "_empty", good[:a] + segment(marker, b"") + good[a:]
    yield "dqt_zero", patched(good, 0xdb, 5, bytes(64))
    yield "dqt_id4", patched(good, 0xdb, 4, b"\4")
    a, b = span(good, 0xda)
    yield "sos_missing", good[:a] + good[b:]
    yield "sos_short", good[:a] + segment(0xda, good[a + 4:b - 2]) + good[b:]
    yield "sos_unknown_id", patched(good, 0xda, 5, b"\x63")
    yield "sos_spectral", patched(good, 0xda, 11, b"\1\2\3")
    yield "dri_zero", after_soi(good, segment(0xdd, b"\0\0"))
    yield "dri_3", after_soi(good, segment(0xdd, b"\0\3"))
    yield "dri_short", after_soi(good, segment(0xdd, b"\0"))
    yield "dnl", after_soi(good, segment(0xdc, b"\0\x1d"))
    yield "dac", after_soi(good, segment(0xcc, b"\0\1"))
    yield "exp", after_soi(good, segment(0xdf, b"\x11"))


def metadata():
    good = save(picture())
    bare = without(good, 0xe0)
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13):
        yield "jfif_%d" % n, after_soi(bare, segment(0xe0, b"JFIF\0\1\1\0\0\1\0\1\0\0"[:n]))
    for n in (4, 5, 6, 7, 11, 12, 13):
        yield "adobe_%d" % n, after_soi(good, segment(0xee, b"Adobe\0\x64\0\0\0\0\1x"[:n]))
    for name, data in (
        ("plain", b"Photoshop 3.0\0"),
        ("resolution", b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)),
        ("cut", b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
        ("cut1", b"Photoshop 3.0\0" + b"8BIM\x03"),
        ("resolution_cut", b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(3)),
        ("size_huge", b"Photoshop 3.0\0" + b"8BIM\x03\xee\0\0\xff\xff\xff\xff" + bytes(3)),
    ):
        yield "photoshop_" + name, after_soi(good, segment(0xed, data))
    for o in range(10):
        yield "exif%d" % o, after_soi(good, segment(0xe1, exif(o)))
    for name, data in (
        ("big_endian", exif(6, ">")),
        ("long", exif(6, kind=4)),
        ("empty", b"Exif\0\0"),
        ("junk", b"Exif\0\0junk and more"),
        ("short", exif(6)[:20]),
        ("offset_far", b"Exif\0\0II*\0\xff\xff\0\0"),
        ("count2", exif(6, count=2)),
        ("many_tags", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(100)),
    ):
        yield "exif_" + name, after_soi(good, segment(0xe1, data))
    yield "exif_twice", after_soi(good, segment(0xe1, exif(6)) * 2)
    yield "exif_dpi_zero", after_soi(
        bare,
        segment(
            0xE1,
            b"Exif\0\0MM\0*\0\0\0\x08\0\2\1\x1a\0\5\0\0\0\1\0\0\0\x26\1\x28\0\3\0\0\0\1\0\2\0\0\0\0\0\0" + bytes(8),
        ),
    )
    yield "xmp", after_soi(good, segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"6\"/>"))
    xmp = segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0<x><tiff:Orientation>8</tiff:Orientation></x>")
    yield "xmp_element", after_soi(good, xmp)
    yield "xmp_and_exif", after_soi(good, xmp + segment(0xe1, exif(3)))
    yield "xmp_and_exif_without", after_soi(good, xmp + segment(0xe1, exif(3).replace(b"\x12\x01", b"\x13\x01")))
    yield "xmp_and_exif_zero", after_soi(good, xmp + segment(0xe1, exif(0)))
    yield "xmp_twice", after_soi(
        good, xmp + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6' tiff:Orientation=\"5\"/>")
    )
    yield "xmp_none", after_soi(good, segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0"))
    yield "flashpix", after_soi(good, segment(0xe2, b"FPXR\0abc"))
    yield "comment", save(picture(), comment=b"words")
    yield "comment_empty", after_soi(good, segment(0xfe, b""))
    for marker in list(range(0xe0, 0xf0)) + [0xfe, 0xf0, 0xf7, 0xfd, 0xc8, 0x01, 0x02, 0x4f, 0xbf]:
        yield "segment_%02x" % marker, after_soi(good, segment(marker, b"anything at all"))
        yield "segment_%02x_past_end" % marker, after_soi(good, segment(marker, b"", length=65535))
    for marker in (0xd0, 0xd7, 0xd8, 0xd9, 0x01, 0x00):
        yield "bare_%02x" % marker, after_soi(good, bytes([0xff, marker]))
    for n in (0, 1):
        yield "length%d" % n, after_soi(good, segment(0xe5, b"", length=n))
    yield "length%d_com" % 1, after_soi(good, segment(0xfe, b"", length=1))
    yield "fill_bytes", after_soi(good, b"\xff" * 7)
    yield "junk_before_marker", after_soi(good, b"junk")
    yield "junk_with_ff00", after_soi(good, b"ju\xff\0nk")
    yield "zeros_before_marker", after_soi(good, bytes(9))


def multi():
    def out(images, **options):
        b = io.BytesIO()
        images[0].save(b, "MPO", save_all=True, append_images=images[1:], **options)
        return b.getvalue()
    good = out([picture(), picture(seed=8)])
    yield "mpo2", good
    yield "mpo3_sizes", out([picture(), picture(20, 10), picture(5, 5, "L")])
    yield "mpo_cut", good[:-100]
    yield "mpo_first_only", good[:len(good) // 2 + 20]
    at = good.index(b"MPF\0")
    for i in (4, 8, 12, 14, 20, 30, 40, 60, 70, 80, 90):
        yield "mpo_patched%d" % i, good[:at + i] + b"\xff\xff" + good[at + i + 2:]
        yield "mpo_zeroed%d" % i, good[:at + i] + b"\0\0" + good[at + i + 2:]
    yield "mpf_empty", after_soi(save(picture()), segment(0xe2, b"MPF\0"))
    yield "ultra_hdr", after_soi(good, segment(0xe1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>'))


def damage():
    good = save(picture(), quality=90)
    progressive = save(picture(), quality=90, progressive=True)
    restarts = save(picture(), quality=90, restart_marker_blocks=1)
    for name, data in (
        ("no_eoi", good[:-2]),
        ("half_eoi", good[:-1]),
        ("trailing_byte", good + b"x"),
        ("trailing_kb", good + bytes(1000)),
        ("trailing_jpeg", good + good),
        ("eoi_twice", good + b"\xff\xd9"),
        ("leading_byte", b"x" + good),
        ("leading_newline", b"\n" + good),
        ("soi_twice", good[:2] + good),
        ("soi_only", b"\xff\xd8\xff"),
        ("soi_eoi", b"\xff\xd8\xff\xd9"),
        ("zeros_for_eoi", good[:-2] + bytes(10)),
        ("progressive_no_eoi", progressive[:-2]),
        ("progressive_trailing", progressive + b"xyz"),
        ("progressive_half_eoi", progressive[:-1]),
    ):
        yield name, data
    for name, data in (("baseline", good), ("progressive", progressive), ("restarts", restarts)):
        start = span(data, 0xda)[1]
        rng = random.Random(11)
        for i in range(12):
            at = rng.randrange(start, len(data) - 2)
            yield "%s_bit%d" % (name, i), data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
        at = (start + len(data)) // 2
        yield name + "_zeros", data[:at] + bytes(20) + data[at + 20:]
        yield name + "_ones", data[:at] + b"\xff" * 20 + data[at + 20:]
        yield name + "_eoi_early", data[:at] + b"\xff\xd9" + data[at:]
        yield name + "_marker_inside", data[:at] + b"\xff\xe1\0\4ab" + data[at:]
        yield name + "_hole", data[:at] + data[at + 30:]
    for i in range(12):
        yield "end_cut%d" % i, good[:len(good) - i]
        yield "restarts_end_cut%d" % i, restarts[:len(restarts) - i]


def variants():
    for family in (encodings, colours, frames, metadata, multi, damage):
        for name, content in family():
            yield "jpeg/%s/%s" % (family.__name__, name), content


def to_cut():
    yield "jpeg/cut/baseline", save(picture(), quality=60)
    yield "jpeg/cut/progressive", save(picture(), quality=60, progressive=True)
    yield "jpeg/cut/restarts", save(picture(mode="L"), quality=60, restart_marker_blocks=1)
    yield "jpeg/cut/cmyk", save(picture(17, 9, mode="CMYK"), quality=50)
