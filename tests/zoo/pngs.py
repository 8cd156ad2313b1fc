"""PNG variants, chunk by chunk: every colour type and depth, and what real and damaged files do with chunks."""
import random
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
LEGAL = [(0, d) for d in (1, 2, 4, 8, 16)] + [(2, 8), (2, 16)] + [(3, d) for d in (1, 2, 4, 8)] + \
        [(4, 8), (4, 16), (6, 8), (6, 16)]
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind, data=b"", crc=None, length=None):
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", crc)


def header(w, h, depth, color, interlace=0, compression=0, filters=0):
    return struct.pack(">IIBBBBB", w, h, depth, color, compression, filters, interlace)


def samples(w, h, depth, color, seed=1):
    """Rows of pixels, a pixel a tuple of samples: a gradient with noise, so that every filter and value is used."""
    rng = random.Random(seed)
    top = (1 << depth) - 1
    def sample(x, y, c):
        value = (x * (c + 1) * top // w + y * top // h) // 2 + rng.randint(-top // 8 - 1, top // 8 + 1)
        return min(top, max(0, value))
    return [[tuple(sample(x, y, c) for c in range(CHANNELS[color])) for x in range(w)] for y in range(h)]


def pack_row(pixels, depth):
    flat = [s for p in pixels for s in p]
    if depth == 16:
        return struct.pack(">%dH" % len(flat), *flat)
    if depth == 8:
        return bytes(flat)
    bits = "".join(format(s, "0%db" % depth) for s in flat)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def filter_row(row, before, bpp, kind):
    left = bytes(bpp) + row
    corner = bytes(bpp) + before
    guess = {0: lambda i: 0, 1: lambda i: left[i], 2: lambda i: before[i], 3: lambda i: (left[i] + before[i]) // 2,
             4: lambda i: paeth(left[i], before[i], corner[i])}[kind]
    return bytes([kind]) + bytes((row[i] - guess(i)) & 255 for i in range(len(row)))


def scanlines(rows, depth, color, first_filter=0):
    bpp = max(1, CHANNELS[color] * depth // 8)
    before, out = bytes(len(pack_row(rows[0], depth))) if rows else b"", []
    for y, pixels in enumerate(rows):
        row = pack_row(pixels, depth)
        out.append(filter_row(row, before, bpp, (y + first_filter) % 5))
        before = row
    return b"".join(out)


def raw_data(rows, depth, color, interlace, first_filter=0):
    if not interlace:
        return scanlines(rows, depth, color, first_filter)
    out = b""
    for x0, y0, dx, dy in ADAM7:
        part = [r[x0::dx] for r in rows[y0::dy]]
        if part and part[0]:
            out += scanlines(part, depth, color, first_filter)
    return out


def palette(n, seed=2):
    rng = random.Random(seed)
    return bytes(rng.randrange(256) for _ in range(3 * n))


def png(w=13, h=9, depth=8, color=2, interlace=0, rows=None, plte=None, before=b"", after=b"", between=b"", end=None,
        ihdr=None, first_filter=0, data=None, split=None, level=6, zdata=None):
    """before: chunks in front of PLTE; between: in front of IDAT; after: behind it; split: sizes of the IDATs."""
    rows = samples(w, h, depth, color) if rows is None else rows
    if plte is None and color == 3:
        plte = palette(1 << depth)
    if zdata is None:
        zdata = zlib.compress(raw_data(rows, depth, color, interlace, first_filter) if data is None else data, level)
    idat, at = b"", 0
    for n in split or [len(zdata)]:
        idat += chunk(b"IDAT", zdata[at:at + n])
        at += n
    if at < len(zdata):
        idat += chunk(b"IDAT", zdata[at:])
    return (SIGNATURE + (chunk(b"IHDR", header(w, h, depth, color, interlace)) if ihdr is None else ihdr) + before +
            (chunk(b"PLTE", plte) if plte is not None else b"") + between + idat + after +
            (chunk(b"IEND") if end is None else end))


def colours():
    for color, depth in LEGAL:
        for interlace in (0, 1):
            yield "color%d_depth%d%s" % (color, depth, "_adam7" if interlace else ""), png(
                depth=depth, color=color, interlace=interlace)
        for w, h in ((1, 1), (8, 8), (3, 2), (1, 9), (9, 1)):
            yield "color%d_depth%d_adam7_%dx%d" % (color, depth, w, h), png(w, h, depth, color, 1)
    for color in range(8):
        for depth in (1, 2, 3, 4, 8, 16, 32):
            if (color, depth) not in LEGAL and color in CHANNELS:
                yield "illegal_color%d_depth%d" % (color, depth), png(
                    ihdr=chunk(b"IHDR", header(13, 9, depth, color)), plte=palette(4) if color == 3 else None)
    yield "illegal_color1", png(ihdr=chunk(b"IHDR", header(13, 9, 8, 1)))
    for f in range(5):
        yield "filter%d" % f, png(h=1, first_filter=f)
    data = bytearray(raw_data(samples(13, 9, 8, 2), 8, 2, 0))
    data[40 * 4] = 5
    yield "filter5", png(data=bytes(data))
    yield "grey16_values", png(16, 1, 16, 0, rows=[[(v,) for v in (0, 1, 127, 128, 254, 255, 256, 257, 300, 511, 512,
                                                                  4095, 32767, 32768, 65280, 65535)]])
    yield "la16_values", png(4, 1, 16, 4, rows=[[(255, 1), (256, 2), (257, 65535), (65535, 0)]])
    yield "rgb16_values", png(2, 1, 16, 2, rows=[[(255, 256, 65535), (0x1234, 0xff00, 1)]])


def sizes():
    for w, h in ((0, 0), (0, 5), (5, 0), (1 << 31, 1), (0xffffffff, 0xffffffff), (70000, 70000), (1 << 20, 1),
                 (13378, 13377), (13377, 13377)):
        yield "says_%dx%d" % (w, h), png(ihdr=chunk(b"IHDR", header(w, h, 8, 2)))
    yield "70000x1", png(70000, 1, 1, 0, data=bytes(1 + 8750))
    yield "1x70000", png(1, 70000, 8, 0, data=bytes(2 * 70000))
    for n in (0, 4, 12, 14, 20):
        yield "ihdr_%d_bytes" % n, png(ihdr=chunk(b"IHDR", (header(13, 9, 8, 2) + bytes(9))[:n]))
    yield "compression1", png(ihdr=chunk(b"IHDR", header(13, 9, 8, 2, compression=1)))
    yield "filter_method1", png(ihdr=chunk(b"IHDR", header(13, 9, 8, 2, filters=1)))
    yield "interlace2", png(ihdr=chunk(b"IHDR", header(13, 9, 8, 2, 2)), data=raw_data(samples(13, 9, 8, 2), 8, 2, 1))
    yield "ihdr_twice", png(before=chunk(b"IHDR", header(13, 9, 8, 2)))
    yield "ihdr_twice_other", png(before=chunk(b"IHDR", header(9, 13, 8, 2)))
    yield "ihdr_late", png(ihdr=b"", between=chunk(b"IHDR", header(13, 9, 8, 2)))
    yield "no_ihdr", png(ihdr=b"")
    yield "no_idat", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + chunk(b"IEND")
    yield "text_before_ihdr", png(ihdr=chunk(b"tEXt", b"a\0b") + chunk(b"IHDR", header(13, 9, 8, 2)))


def palettes():
    for depth in (1, 2, 4, 8):
        full = 1 << depth
        for n in sorted({0, 1, full // 2, full - 1, full, full + 1, 256, 257, 300}):
            yield "depth%d_palette%d" % (depth, n), png(depth=depth, color=3, plte=palette(n))
    for n in (1, 2, 4, 5, 100):
        yield "palette_bytes%d" % n, png(depth=8, color=3, plte=palette(100)[:n])
    yield "no_palette", png(depth=4, color=3, plte=b"", ihdr=None).replace(chunk(b"PLTE"), b"")
    yield "no_palette_trns", png(depth=4, color=3, plte=b"", between=chunk(b"tRNS", b"\0")).replace(chunk(b"PLTE"), b"")
    yield "palette_twice", png(depth=4, color=3, before=chunk(b"PLTE", palette(16, 9)))
    yield "palette_late", png(depth=4, color=3, plte=b"", after=chunk(b"PLTE", palette(16))).replace(
        chunk(b"PLTE"), b"", 1
    )
    yield "palette_after", png(depth=4, color=3, after=chunk(b"PLTE", palette(16, 9)))
    yield "palette_bad_crc", png(depth=4, color=3, plte=palette(16)).replace(chunk(b"PLTE", palette(16)),
                                                                            chunk(b"PLTE", palette(16), 1))
    for color, depth in ((0, 8), (2, 8), (4, 8), (6, 8)):
        yield "color%d_with_palette" % color, png(depth=depth, color=color, plte=palette(7))
    yield "color2_palette_bytes5", png(plte=bytes(5))


def transparency():
    for color, depth in LEGAL:
        n = {0: 2, 2: 6, 3: 1 << depth, 4: 2, 6: 6}[color]
        for size in sorted({0, 1, n - 1, n, n + 1, 300}):
            yield "color%d_depth%d_trns%d" % (color, depth, size), png(
                depth=depth, color=color, between=chunk(b"tRNS", bytes((7 * i) & 255 for i in range(size))))
    yield "trns_simple", png(depth=4, color=3, between=chunk(b"tRNS", b"\xff\xff\0\xff"))
    yield "trns_simple_far", png(depth=4, color=3, plte=palette(2), between=chunk(b"tRNS", b"\xff" * 299 + b"\0"))
    yield "trns_opaque", png(depth=4, color=3, between=chunk(b"tRNS", b"\xff" * 16))
    yield "trns_before_palette", png(depth=4, color=3, before=chunk(b"tRNS", b"\0\x80"))
    yield "trns_after_idat", png(after=chunk(b"tRNS", bytes(3)))
    yield "trns_grey_65535", png(depth=8, color=0, between=chunk(b"tRNS", b"\xff\xff"))
    yield "trns_bad_crc", png(between=chunk(b"tRNS", bytes(6), 5))


def texts():
    good = {"tEXt": b"Title\0words", "zTXt": b"Title\0\0" + zlib.compress(b"words" * 9),
            "iTXt": b"Title\0\0\0en\0Titel\0words", "iCCP": b"sRGB\0\0" + zlib.compress(bytes(500)),
            "gAMA": struct.pack(">I", 45455), "cHRM": bytes(32), "sRGB": b"\0", "pHYs": bytes(8) + b"\1",
            "eXIf": b"II*\0\x08\0\0\0\0\0\0\0\0\0", "tIME": bytes(7), "bKGD": bytes(6), "sBIT": b"\5\6\5",
            "hIST": bytes(4), "sPLT": b"x\0\x08" + bytes(6), "vpAg": bytes(9), "caBX": bytes(40), "cICP": bytes(4),
            "acTL": struct.pack(">II", 1, 0), "CgBI": bytes(4), "FOOB": b"critical"}
    for kind, data in good.items():
        name = kind.encode()
        yield kind, png(between=chunk(name, data))
        yield kind + "_crc", png(between=chunk(name, data, 77))
        yield kind + "_after", png(after=chunk(name, data))
        yield kind + "_after_crc", png(after=chunk(name, data, 77))
        yield kind + "_empty", png(between=chunk(name))
        yield kind + "_empty_after", png(after=chunk(name))
        yield kind + "_short", png(between=chunk(name, data[:len(data) // 2]))
        yield kind + "_short_after", png(after=chunk(name, data[:len(data) // 2]))
        yield kind + "_long", png(between=chunk(name, data + bytes(30)))
        yield kind + "_past_end", png(between=chunk(name, data, length=1 << 20))
        yield kind + "_after_past_end", png(after=chunk(name, data, length=1 << 20))
        yield kind + "_twice", png(between=chunk(name, data) * 2)
        yield kind + "_first", png(ihdr=chunk(name, data) + chunk(b"IHDR", header(13, 9, 8, 2)))
    bomb = zlib.compress(bytes(2 << 20), 9)
    for limit, data in (("1m", zlib.compress(bytes(1 << 20), 9)), ("2m", bomb)):
        yield "zTXt_" + limit, png(between=chunk(b"zTXt", b"a\0\0" + data))
        yield "iTXt_" + limit, png(between=chunk(b"iTXt", b"a\0\1\0\0\0" + data))
        yield "iCCP_" + limit, png(between=chunk(b"iCCP", b"a\0\0" + data))
        yield "zTXt_after_" + limit, png(after=chunk(b"zTXt", b"a\0\0" + data))
        yield "iTXt_after_" + limit, png(after=chunk(b"iTXt", b"a\0\1\0\0\0" + data))
        yield "iCCP_after_" + limit, png(after=chunk(b"iCCP", b"a\0\0" + data))
    junk = b"\x55" * 20
    for kind, data in (
        ("zTXt_method1", b"a\0\1" + junk),
        ("zTXt_junk", b"a\0\0" + junk),
        ("zTXt_no_nul", b"title"),
        ("zTXt_nul_last", b"title\0"),
        ("iCCP_method1", b"a\0\1" + junk),
        ("iCCP_junk", b"a\0\0" + junk),
        ("iCCP_no_nul", b"\0title"),
        ("iCCP_name_only", b"title"),
        ("iCCP_nul_last", b"t\0"),
        ("iTXt_method1", b"a\0\1\1\0\0" + junk),
        ("iTXt_junk", b"a\0\1\0\0\0" + junk),
        ("iTXt_no_nul", b"a"),
        ("iTXt_flags_missing", b"a\0\1"),
        ("iTXt_latin1", b"a\0\0\0\xff\0\xff\0\xff"),
        ("tEXt_no_nul", b"words"),
        ("tEXt_no_key", b"\0words"),
        ("tEXt_latin1", b"\xe9\0\xe8"),
        ("tEXt_cut_zlib", b"a\0\0" + zlib.compress(bytes(900))[:-3]),
        ("zTXt_cut_zlib", b"a\0\0" + zlib.compress(bytes(900))[:-3]),
        ("iCCP_cut_zlib", b"a\0\0" + zlib.compress(bytes(900))[:-3]),
        ("iCCP_bad_adler", b"a\0\0" + zlib.compress(bytes(900))[:-3] + b"abc"),
    ):
        name = kind.split("_")[0].encode()
        yield kind, png(between=chunk(name, data))
        yield kind + "_after", png(after=chunk(name, data))
    yield "tEXt_large", png(between=chunk(b"tEXt", b"a\0" + b"x" * 300000))
    yield "many_texts", png(between=b"".join(chunk(b"tEXt", b"k%d\0v" % i) for i in range(2000)))
    yield "text_memory", png(
        between=b"".join(chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(1 << 20), 9)) for i in range(65))
    )
    yield "text_memory_just", png(
        between=b"".join(chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(1 << 20), 9)) for i in range(64))
    )
    for name in (b"ab d", b"ab\0d", b"1234", b"_x_y", b"t\xe9xt", b"IDAU"):
        for where in ("between", "after"):
            yield "name_%s_%s" % (name.hex(), where), png(**{where: chunk(name, b"abc")})


def data():
    plain = zlib.compress(raw_data(samples(13, 9, 8, 2), 8, 2, 0))
    for name, split in (("one_byte_each", [1] * len(plain)), ("empty_first", [0]), ("empties", [0, 3, 0, 0, 5, 0]),
                        ("checksum_apart", [len(plain) - 4]), ("header_apart", [2])):
        yield "idat_" + name, png(split=split)
    for name, z in (
        ("bad_adler", plain[:-1] + bytes([plain[-1] ^ 1])),
        ("no_adler", plain[:-4]),
        ("half_adler", plain[:-2]),
        ("extra", plain + b"extra bytes"),
        ("half", plain[: len(plain) // 2]),
        ("nothing", b""),
        ("bad_header", b"\x79" + plain[1:]),
        ("window_too_large", b"\x88\x1c" + plain[2:]),
        ("raw_deflate", plain[2:-4]),
        ("gzip", b"\x1f\x8b\x08" + bytes(7) + plain[2:-4]),
    ):
        yield "zlib_" + name, png(zdata=z)
    yield "zlib_bad_adler_apart", png(zdata=plain[:-1] + bytes([plain[-1] ^ 1]), split=[len(plain) - 4])
    raw = raw_data(samples(13, 9, 8, 2), 8, 2, 0)
    for name, some in (("row_more", raw + bytes(40)), ("byte_more", raw + b"\0"), ("row_less", raw[:-40]),
                       ("byte_less", raw[:-1]), ("rows_half", raw[:40 * 4]), ("half_a_row", raw[:40 * 4 + 20])):
        for level in (0, 6):
            yield "data_%s_level%d" % (name, level), png(data=some, level=level)
    yield "stored", png(level=0)
    for name in ("crc", "crc_last"):
        good = png(split=[20] if name == "crc_last" else None)
        at = good.rindex(b"IDAT") if name == "crc_last" else good.index(b"IDAT")
        n = struct.unpack(">I", good[at - 4:at])[0]
        yield "idat_" + name, good[:at + 4 + n] + b"nope" + good[at + 8 + n:]
    yield "ihdr_crc", png(ihdr=chunk(b"IHDR", header(13, 9, 8, 2), 1))
    yield "text_between_idats", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + chunk(b"IDAT", plain[:30]) + \
        chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", plain[30:]) + chunk(b"IEND")
    yield "idat_after_text", png(after=chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"more"))
    yield "idat_past_end", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + chunk(b"IDAT", plain, length=1 << 24)
    yield "idat_length_small", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + chunk(
        b"IDAT", plain, length=len(plain) - 9
    )
    yield "idat_length_2g", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + chunk(b"IDAT", plain, length=0xfffffff0)
    flat = zlib.compress(raw_data([[(7,)] * 5] * 200, 8, 0, 0), 9)
    for cut in range(1, 9):
        yield "flat_cut%d" % cut, png(5, 200, 8, 0, zdata=flat[:-cut])


def ends():
    good = png()
    for name, end in (("no_iend", b""), ("iend_crc", chunk(b"IEND", crc=3)), ("iend_data", chunk(b"IEND", b"abc")),
                      ("trailing_byte", chunk(b"IEND") + b"x"), ("trailing_kb", chunk(b"IEND") + bytes(1000)),
                      ("trailing_png", chunk(b"IEND") + good), ("junk_for_iend", b"some junk here, long enough"),
                      ("zeros_for_iend", bytes(40)), ("short_for_iend", b"abcde"), ("iend_twice", chunk(b"IEND") * 2)):
        yield name, png(end=end)
    yield "leading_byte", b"x" + good
    yield "leading_newline", b"\n" + good
    yield "signature_only", SIGNATURE
    yield "signature_lf", good.replace(b"\r\n", b"\n", 1)
    yield "high_bit_lost", b"\x09" + good[1:]
    for i in range(1, 30):
        yield "end_cut%d" % i, good[:-i]


def animated():
    def control(seq, w=13, h=9, x=0, y=0, size=26):
        return chunk(b"fcTL", (struct.pack(">IIIIIHHBB", seq, w, h, x, y, 1, 10, 0, 0) + bytes(9))[:size])
    frame = zlib.compress(raw_data(samples(13, 9, 8, 2, seed=5), 8, 2, 0))
    count = chunk(b"acTL", struct.pack(">II", 2, 0))
    second = control(1) + chunk(b"fdAT", struct.pack(">I", 2) + frame)
    yield "two_frames", png(between=count + control(0), after=second)
    yield "poster", png(between=count, after=control(0) + chunk(b"fdAT", struct.pack(">I", 1) + frame))
    yield "one_frame", png(between=chunk(b"acTL", struct.pack(">II", 1, 0)) + control(0))
    yield "no_second", png(between=count + control(0))
    yield "second_cut", png(between=count + control(0), after=second)[:-40]
    yield "second_bad_crc", png(between=count + control(0), after=second.replace(frame[-8:], b"12345678"))
    yield "bad_sequence", png(between=count + control(3), after=second)
    yield "bad_sequence_later", png(between=count + control(0), after=control(7) + chunk(b"fdAT", bytes(4) + frame))
    yield "no_count", png(between=control(0), after=second)
    yield "count_short", png(between=chunk(b"acTL", bytes(7)) + control(0))
    yield "count_zero", png(between=chunk(b"acTL", bytes(8)) + control(0), after=second)
    yield "count_twice", png(between=count + count + control(0), after=second)
    yield "control_short", png(between=count + control(0, size=25), after=second)
    yield "control_long", png(between=count + control(0, size=30), after=second)
    yield "part_too_wide", png(between=count + control(0, 14, 9), after=second)
    yield "part", png(between=count + control(0, 6, 4, 3, 2), after=second,
                      data=raw_data(samples(6, 4, 8, 2), 8, 2, 0))
    yield "fdat_first", png(between=count + control(0) + chunk(b"fdAT", struct.pack(">I", 1) + frame))
    yield "fdat_short_after", png(between=count + control(0), after=chunk(b"fdAT", b"ab"))
    yield "fdat_only", SIGNATURE + chunk(b"IHDR", header(13, 9, 8, 2)) + count + control(0) + \
        chunk(b"fdAT", struct.pack(">I", 1) + frame) + chunk(b"IEND")


def exif(orientation, order="<", kind=3, count=1):
    """As JPEG has it; PNG's chunk has it without the first six bytes."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\0")
    return b"Exif\0\0" + head + struct.pack(order + "IHHHI", 8, 1, 0x112, kind, count) + value + bytes(4)


def turned():
    for o in range(10):
        for color, depth in ((2, 8), (3, 4), (0, 16), (6, 8)):
            yield "color%d_%d" % (color, o), png(depth=depth, color=color, between=chunk(b"eXIf", exif(o)[6:]))
        yield "after_%d" % o, png(after=chunk(b"eXIf", exif(o)[6:]))
    for name, data in (
        ("big_endian", exif(6, ">")[6:]),
        ("byte", exif(6, kind=1)[6:]),
        ("long", exif(8, ">", kind=4)[6:]),
        ("twice", exif(6) + exif(3)),
        ("prefix", exif(6)),
        ("short", exif(6)[6:20]),
        ("junk", b"junk" * 9),
        ("count0", exif(6, count=0)[6:]),
        ("count3", exif(6, count=3)[6:]),
    ):
        yield name, png(between=chunk(b"eXIf", data))
    yield "two_chunks", png(between=chunk(b"eXIf", exif(6)[6:]), after=chunk(b"eXIf", exif(3)[6:]))
    yield "xmp", png(between=chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'))


def with_checksums(content):
    """The file with the checksums that its chunks should have, as far as there are chunks."""
    out, at = bytearray(content), len(SIGNATURE)
    while at + 12 <= len(out):
        end = at + 8 + struct.unpack(">I", out[at:at + 4])[0]
        if end + 4 > len(out):
            break
        out[end:end + 4] = struct.pack(">I", zlib.crc32(out[at + 4:end]))
        at = end + 4
    return bytes(out)


def variants():
    for family in (colours, sizes, palettes, transparency, texts, data, ends, animated, turned):
        for name, content in family():
            yield "png/%s/%s" % (family.__name__, name), content


def to_cut():
    """Small pictures that are then cut at every tenth byte."""
    yield "png/cut/rgb", png(20, 14)
    yield "png/cut/adam7", png(20, 14, interlace=1)
    yield "png/cut/palette", png(20, 14, 4, 3, between=chunk(b"tRNS", b"\0\x80"),
                                 after=chunk(b"tEXt", b"Author\0somebody"))
    yield "png/cut/many", png(20, 14, 8, 6, split=[20] * 40, before=chunk(b"gAMA", bytes(4)),
                              after=chunk(b"eXIf", bytes(30)))
