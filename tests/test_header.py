"""A header states the size that Pillow finds, or nothing."""

from io import BytesIO

import pytest
from PIL import Image
from test_decode_hostile import encoded

from ncii_match.decode.header import stated_sizes

PICTURE = Image.new("RGB", (37, 21), "teal")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_the_size_is_the_one_that_is_decoded(name):
    data = encoded(PICTURE, name)
    assert stated_sizes(name, data) == {(37, 21)}
    for cut in range(len(data)):
        sizes = stated_sizes(name, data[:cut])
        assert sizes is None or isinstance(sizes, frozenset)


def test_other_kinds_of_the_same_formats():
    for options in ({"progressive": True}, {"exif": Image.Exif(), "comment": b"\xff\xc0 no frame"}):
        assert stated_sizes("JPEG", encoded(PICTURE, "JPEG", **options)) == {(37, 21)}
    assert stated_sizes("WEBP", encoded(PICTURE, "WEBP", lossless=True)) == {(37, 21)}
    assert stated_sizes("WEBP", encoded(PICTURE.convert("RGBA"), "WEBP", exif=b"x")) == {(37, 21)}
    core = b"BM" + bytes(8) + (26).to_bytes(4, "little") + (12).to_bytes(4, "little")
    core += (5).to_bytes(2, "little") + (6).to_bytes(2, "little") + b"\1\0\x18\0" + bytes(16 * 6)
    assert stated_sizes("BMP", core) == {(5, 6)} == {Image.open(BytesIO(core)).size}
    upside = bytearray(encoded(PICTURE, "BMP"))
    upside[22:26] = (-21).to_bytes(4, "little", signed=True)
    assert Image.open(BytesIO(bytes(upside))).size in stated_sizes("BMP", bytes(upside))


@pytest.mark.parametrize("name", ["TIFF", "AVIF", ""])
def test_nothing_is_said_where_boxes_refer_to_each_other(name):
    assert stated_sizes(name, encoded(PICTURE, name) if name else b"no picture") is None
