"""Notes that a file carries beside its pixels, however broken, do not decide whether and as what it is recognised."""

import struct
import zlib

import numpy as np
import pytest
from hostile import files
from hostile_files import borders, png_chunk
from PIL import Image
from test_decode_hostile import FILES, PHOTO, encoded, status

from ncii_match.decode.container import png_chunks
from ncii_match.decode.metadata import BARE, bare_png
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status

BOMB = zlib.compress(bytes(100_000_000))
PNG_NOTES = {
    "a text in place of the transparent colour": png_chunk(b"tEXt", b"transparency\0x"),
    "an international text in its place": png_chunk(b"iTXt", b"transparency\0\0\0\0\0x"),
    "texts in place of other facts": b"".join(
        png_chunk(b"tEXt", key + b"\0x") for key in (b"gamma", b"interlace", b"icc_profile", b"exif", b"dpi", b"srgb")
    ),
    "a text of 100 MB, packed": png_chunk(b"zTXt", b"a\0\0" + BOMB),
    "an international text of 100 MB, packed": png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
    "a profile of 100 MB, packed": png_chunk(b"iCCP", b"a\0\0" + BOMB),
    "80 MB of texts": png_chunk(b"tEXt", b"a\0" + bytes(1_000_000)) * 80,
    "a text packed in an unknown way": png_chunk(b"zTXt", b"a\0\1abc"),
    "a profile without content": png_chunk(b"iCCP", b""),
    "a text with a wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    "a gamma without content": png_chunk(b"gAMA", b""),
    "colours without content": png_chunk(b"cHRM", b"123"),
    "a size without content": png_chunk(b"pHYs", b""),
    "camera data that are none": png_chunk(b"eXIf", b"MM\0*no camera data"),
    "an animation without content": png_chunk(b"acTL", b""),
    "a frame without content": png_chunk(b"fcTL", b""),
    "a part of a frame that does not follow": png_chunk(b"fdAT", b"\0\0\0\5abc"),
    "a chunk that nobody knows": png_chunk(b"prVt", b"1234"),
}


def segment(kind, body):
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body


def directory(*entries):
    return (
        b"Exif\0\0II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    )


JPEG_NOTES = {
    "a short JFIF segment": segment(0xE0, b"JFIF\0"),
    "a short Adobe segment": segment(0xEE, b"Adobe"),
    "camera data that are none": segment(0xE1, b"Exif\0\0no camera data"),
    "camera data that lead to themselves": segment(0xE1, directory((0x8769, 4, 1, 8))),
    "a resolution that is no number": segment(0xE1, directory((0x011A, 5, 1, 2**31), (0x0128, 3, 1, 2))),
    "65,535 entries of 4 GB": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x32\1\7\0" + b"\xff" * 60_000),
    "a profile without content": segment(0xE2, b"ICC_PROFILE\0"),
    "a profile of 16 MB": segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000)) * 255,
    "more pictures that are none": segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "an editor's data that end early": segment(0xED, b"Photoshop 3.0\0008BIM\3\xed\0\0\xff\xff\xff\xff"),
    "a comment": segment(0xFE, bytes(60_000)),
    "a marker without content": b"\xff\1",
    "a restart where nothing started": b"\xff\xd0",
    "fill bytes": b"\xff" * 50,
}
GIF_NOTES = {
    "an empty extension": b"\x21\xff\0",
    "a short graphic control": b"\x21\xf9\1\0\0",
    "an empty graphic control": b"\x21\xf9\0",
    "a hundred thousand comments": b"\x21\xfe\5hello\0" * 100_000,
    "a plain text": b"\x21\1\2ab\0",
}


def recognised(data):
    hashes = hash_images([data], workers=1)
    return Status(int(hashes.status[0])).name, hashes.to_hex()[0]


@pytest.mark.parametrize("note", PNG_NOTES)
def test_notes_of_a_png(note):
    for name in ("PNG", "PNG, palette", "PNG, 16 bits", "PNG, grey with alpha", "PNG, interlaced"):
        data = dict(files())[name]
        wanted, places = recognised(data), borders(data)
        assert wanted[0] == "OK"
        for at in (places[2], places[-2]):  # before the samples, and after them
            assert recognised(data[:at] + PNG_NOTES[note] + data[at:]) == wanted, (name, at)


@pytest.mark.parametrize("note", JPEG_NOTES)
def test_notes_of_a_jpeg(note):
    for name in ("JPEG", "JPEG, progressive", "JPEG, CMYK", "JPEG, grey and progressive"):
        data = dict(files())[name]
        wanted, places = recognised(data), borders(data)
        assert wanted[0] == "OK"
        for at in places[2:4]:
            assert recognised(data[:at] + JPEG_NOTES[note] + data[at:]) == wanted, (name, at)


@pytest.mark.parametrize("note", GIF_NOTES)
def test_notes_of_a_gif(note):
    for name in ("GIF", "GIF, animated", "GIF, transparent"):
        data = dict(files())[name]
        wanted = recognised(data)
        assert wanted[0] == "OK"
        at = next(at for at in borders(data) if at > 13 and data[at] in b"\x21\x2c")
        assert recognised(data[:at] + GIF_NOTES[note] + data[at:]) == wanted, name


def test_what_decides_pixels_is_not_dropped():
    """The transparent colour, the colours of a palette, and how the colours of a JPEG are stored."""
    for name, data in files():
        kind = name.partition(",")[0]
        if kind == "PNG" or kind in BARE:
            assert recognised((bare_png if kind == "PNG" else BARE[kind])(data)) == recognised(data), name
    clear = np.asarray(PHOTO.quantize(16))
    shown = encoded(PHOTO.quantize(16), "PNG", transparency=bytes(16))
    assert clear.any()
    assert recognised(shown) == recognised(encoded(Image.new("L", PHOTO.size, 255), "PNG")), "nothing but the matte"


def test_what_stands_where_viewers_pass_over_it_hides_no_picture():
    """Transparency and a palette after the samples, a second time, or of a length that fits no picture."""
    grey, colours = FILES["PNG"], encoded(PHOTO.quantize(16), "PNG")
    hidden, black = png_chunk(b"tRNS", bytes(16)), png_chunk(b"PLTE", bytes(48))
    end = len(colours) - 12
    for data in (colours[:end] + hidden + colours[end:], colours[:end] + black + colours[end:]):
        assert recognised(data) == recognised(colours)
    shown = dict(files())["PNG, palette"]
    before_palette, after_palette = borders(colours)[2:4]
    assert colours[before_palette + 4 :].startswith(b"PLTE")
    early = colours[:before_palette] + hidden + colours[before_palette:]
    assert recognised(early) == recognised(colours), "viewers pass over transparency before the palette"
    long = colours[:after_palette] + png_chunk(b"tRNS", bytes(17)) + colours[after_palette:]
    assert recognised(long) == recognised(colours), "more of it than colours"
    assert recognised(colours[:after_palette] + hidden + colours[after_palette:]) != recognised(colours)
    assert recognised(shown[:-12] + hidden + shown[-12:]) == recognised(shown)
    assert recognised(colours[:after_palette] + black + colours[after_palette:]) == recognised(colours)
    end = borders(grey)[2]
    assert recognised(grey[:end] + png_chunk(b"tRNS", b"1") + grey[end:]) == recognised(grey)


def test_a_note_that_is_cut_short_costs_nothing_and_samples_that_are_do():
    data = FILES["PNG"]
    note = png_chunk(b"tEXt", b"a\0" + bytes(100))
    whole = data[:-12] + note
    assert recognised(whole[:-20]) == recognised(data)
    assert status(data[:-40]) == Status.TRUNCATED


def test_frames_are_counted_though_their_chunks_are_dropped():
    data = FILES["PNG, animated"]
    assert status(data, max_frames=3) == Status.OK
    assert status(data, max_frames=2) == Status.TOO_MANY_FRAMES
    at = data.index(b"acTL") + 4
    assert status(data[:at] + struct.pack(">I", 2**31 - 1) + data[at + 4 :]) == Status.TOO_MANY_FRAMES
    assert status(data[:at] + struct.pack(">I", 2**31) + data[at + 4 :]) == Status.OK, "no number that a PNG can state"


def test_every_whole_chunk_of_a_png_is_seen_the_last_one_too():
    kinds = [kind for kind, _, _ in png_chunks(FILES["PNG"])]
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    assert [kind for kind, _, _ in png_chunks(FILES["PNG"][:-1])] == kinds[:-1]


@pytest.mark.parametrize("length", [14, 15])
def test_a_jfif_segment_says_how_colours_are_stored_from_its_whole_length_on(length):
    """Components named R, G and B are red, green and blue, unless a JFIF segment says that they are luma and chroma."""
    start, comment = b"\xff\xd8", segment(0xFE, b"a comment")
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"[:14] + bytes(length - 14))
    scan = b"\xff\xda" + bytes(20)
    assert BARE["JPEG"](start + jfif + comment + scan) == start + jfif + scan
    short = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0")
    assert BARE["JPEG"](start + short + comment + scan) == start + scan
