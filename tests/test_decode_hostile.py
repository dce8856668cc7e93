"""Whatever is thrown at it, a picture gets a status by name, nothing is raised, and the batch goes on."""

import gzip
import os
import struct
import sys
import threading
import warnings
from io import BytesIO, StringIO

import numpy as np
import pytest
from conftest import PHOTOS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from ncii_match.decode import container
from ncii_match.decode.limits import FORMATS, DecodeLimits
from ncii_match.errors import InputError
from ncii_match.ingest import PictureHasher, hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, UNKNOWN_QUALITY, Views

PHOTO = Image.fromarray(np.asarray(Image.open(PHOTOS / "coffee.png").convert("RGB"))).resize((60, 40))


def encoded(image, file_format, **options):
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def status(source, **limits):
    return Status(int(hash_images([source], limits=DecodeLimits(**limits), workers=1).status[0]))


def noted_exif():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker " * 5, 72.0
    return exif


MORE = {"save_all": True, "append_images": [ImageOps.flip(PHOTO), ImageOps.invert(PHOTO)]}
FILES = {
    "AVIF": encoded(PHOTO, "AVIF", speed=10),
    "AVIF, animated": encoded(PHOTO, "AVIF", speed=10, **MORE),
    "BMP": encoded(PHOTO, "BMP"),
    "BMP, palette": encoded(PHOTO.quantize(16), "BMP"),
    "GIF": encoded(PHOTO.quantize(64), "GIF"),
    "GIF, animated": encoded(PHOTO.quantize(64), "GIF", **MORE),
    "JPEG": encoded(PHOTO, "JPEG"),
    "JPEG, progressive": encoded(PHOTO, "JPEG", progressive=True),
    "JPEG, CMYK": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "JPEG, EXIF": encoded(PHOTO, "JPEG", exif=noted_exif()),
    "PNG": encoded(PHOTO, "PNG"),
    "PNG, palette": encoded(PHOTO.quantize(16), "PNG", transparency=3),
    "PNG, animated": encoded(PHOTO, "PNG", **MORE),
    "TIFF": encoded(PHOTO, "TIFF"),
    "TIFF, big": encoded(PHOTO, "TIFF", big_tiff=True),
    "TIFF, LZW": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encoded(PHOTO, "TIFF", compression="jpeg"),
    "TIFF, fax": encoded(PHOTO.convert("1"), "TIFF", compression="group4"),
    "WEBP": encoded(PHOTO, "WEBP"),
    "WEBP, lossless": encoded(PHOTO, "WEBP", lossless=True),
    "WEBP, animated": encoded(PHOTO, "WEBP", **MORE),
}
SIGNATURE = {"AVIF": 12, "BMP": 2, "GIF": 6, "JPEG": 3, "PNG": 8, "TIFF": 4, "WEBP": 12}
"""Bytes by which a format is recognised."""

# --- files that are no pictures, or not such ones ------------------------------------------------------------------

NAMED = {
    "nothing": (b"", Status.EMPTY),
    "zeros": (bytes(1000), Status.NOT_AN_IMAGE),
    "text": (b"It is only a text.\n" * 100, Status.NOT_AN_IMAGE),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Status.NOT_AN_IMAGE),
    "PDF": (b"%PDF-1.7\n", Status.NOT_AN_IMAGE),
    "MP4": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42", Status.NOT_AN_IMAGE),
    "RIFF that is a sound": (b"RIFF\x24\x00\x00\x00WAVEfmt ", Status.NOT_AN_IMAGE),
    "HEIF": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", Status.FORMAT_NOT_ALLOWED),
    "HEIF by a compatible brand": (b"\x00\x00\x00\x18ftypzzzz\x00\x00\x00\x00mif1heix", Status.FORMAT_NOT_ALLOWED),
    "JPEG XL, container": (b"\x00\x00\x00\x0cJXL \r\n\x87\n", Status.FORMAT_NOT_ALLOWED),
    "JPEG XL, bare": (b"\xff\x0a\x00", Status.FORMAT_NOT_ALLOWED),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Status.FORMAT_NOT_ALLOWED),
    "Photoshop": (b"8BPS\x00\x01", Status.FORMAT_NOT_ALLOWED),
    "icon": (b"\x00\x00\x01\x00\x01\x00", Status.FORMAT_NOT_ALLOWED),
    "QOI": (b"qoif\x00\x00", Status.FORMAT_NOT_ALLOWED),
    "1 x 1": (encoded(PHOTO.resize((1, 1)), "PNG"), Status.TOO_SMALL),
    "1 x 20,000": (encoded(PHOTO.resize((1, 20_000)), "PNG"), Status.TOO_SMALL),
    "20,000 x 4": (encoded(PHOTO.resize((20_000, 4)), "PNG"), Status.TOO_SMALL),
    "5 x 5": (encoded(PHOTO.resize((5, 5)), "PNG"), Status.OK),
}


@pytest.mark.parametrize("name", NAMED)
def test_bytes_get_a_status_by_name(name):
    data, expected = NAMED[name]
    assert status(data) == expected


def test_a_file_is_judged_by_its_content(tmp_path):
    for name, data, expected in (
        ("png.jpg", FILES["PNG"], Status.OK),
        ("jpeg.gif", FILES["JPEG"], Status.OK),
        ("text.png", b"text", Status.NOT_AN_IMAGE),
        ("empty.png", b"", Status.EMPTY),
    ):
        (tmp_path / name).write_bytes(data)
        assert status(tmp_path / name) == expected


def test_an_avif_file_that_says_it_is_heif_first_is_avif():
    """Written so by some encoders: major brand mif1, avif among the compatible ones."""
    data = FILES["AVIF"].replace(b"ftypavif", b"ftypmif1", 1)
    assert container.format_of(data) == "AVIF"
    assert status(data) == Status.OK


# --- things that cannot be read ------------------------------------------------------------------------------------


class Unreadable:
    def __init__(self, error):
        self.error = error

    def read(self, _size):
        raise self.error


class TakesNoSize:
    def read(self):
        return FILES["PNG"]


class NoPath(os.PathLike):
    def __fspath__(self):
        return 3


def released():
    view = memoryview(FILES["PNG"])
    view.release()
    return view


def closed():
    file = BytesIO(FILES["PNG"])
    file.close()
    return file


UNREADABLE = {
    "no such file": lambda folder: folder / "missing.png",
    "a directory": lambda folder: folder,
    "a device": lambda _: "/dev/zero",
    "a NUL in the path": lambda _: "a\x00b",
    "a path of another kind": lambda _: NoPath(),
    "a closed file": lambda _: closed(),
    "a released view": lambda _: released(),
    "gzip cut short": lambda _: gzip.GzipFile(fileobj=BytesIO(gzip.compress(FILES["PNG"])[:-20])),
    "a read that takes no size": lambda _: TakesNoSize(),
    "a class instead of its instance": lambda _: BytesIO,
    "a read that raises": lambda _: Unreadable(RuntimeError("connection lost")),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_says_so(name, tmp_path):
    assert status(UNREADABLE[name](tmp_path)) == Status.CANNOT_READ


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    waiting = threading.Thread(target=lambda: found.append(status(tmp_path / "pipe")), daemon=True)
    waiting.start()
    waiting.join(10)
    assert found == [Status.CANNOT_READ]


def test_memory_that_runs_out_while_reading_has_a_name_of_its_own():
    assert status(Unreadable(MemoryError())) == Status.NO_MEMORY


# --- objects that are no pictures ----------------------------------------------------------------------------------

UNSUPPORTED = {
    "None": None,
    "a number": 3,
    "an object": object(),
    "a list": [1, 2],
    "a file of text": StringIO("text"),
    **{f"shape {shape}": np.zeros(shape, np.uint8) for shape in ((), (9,), (0, 9), (9, 9, 0), (9, 9, 2), (9, 9, 5))},
    "4 dimensions": np.zeros((1, 9, 9, 3), np.uint8),
    **{
        f"samples {dtype}": np.zeros((9, 9), dtype)
        for dtype in ("i1", "i8", "u4", "f2", "c8", ">u2", "O", "U1", "M8[s]")
    },
    "records": np.zeros((9, 9), [("red", "u1")]),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_objects_are_unsupported(name):
    assert status(UNSUPPORTED[name]) == Status.UNSUPPORTED_INPUT


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_that_are_no_numbers_are_corrupt(bad, dtype):
    with np.errstate(over="ignore"):
        samples = np.where(np.eye(9) > 0, bad, 0.5).astype(dtype)
    assert status(samples) == Status.CORRUPT
    if dtype == np.float32:
        assert status(Image.fromarray(samples)) == Status.CORRUPT


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I", "F", "I;16", "CMYK", "LAB"])
def test_images_without_pixels_are_too_small(mode):
    assert status(Image.new(mode, (0, 9))) == Status.TOO_SMALL


def test_one_picture_instead_of_a_list_is_an_error_of_the_caller():
    for picture in (FILES["PNG"], "a.png", PHOTO, np.asarray(PHOTO), BytesIO()):
        with pytest.raises(InputError, match="give a list"):
            hash_images(picture)


# --- cut short -----------------------------------------------------------------------------------------------------


def still_decodes(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(BytesIO(data)).load()
        except Exception:  # noqa: BLE001
            return False
        return True


def fits(name, cut, found):
    """Whether a status is the right one for a file that was cut."""
    if not cut:
        return found == Status.EMPTY
    if len(cut) < SIGNATURE[name.partition(",")[0]]:
        return found == Status.NOT_AN_IMAGE
    if still_decodes(cut):
        return found == Status.OK
    return found == Status.TRUNCATED or (found == Status.CORRUPT and name.startswith("TIFF"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_every_twentieth_is_truncated_and_the_batch_goes_on(name):
    data = FILES[name]
    cuts = [data[: len(data) * part // 20] for part in range(20)]
    hashes = hash_images([PHOTO, *cuts, PHOTO])
    good = hash_images([PHOTO]).to_hex()[0]
    assert hashes.to_hex()[0] == hashes.to_hex()[-1] == good
    for cut, found in zip(cuts, hashes.status[1:-1].tolist(), strict=True):
        assert fits(name, cut, found), (len(cut), Status(found).name)
    if "animated" not in name:  # of an animation the first frame may be whole
        assert set(hashes.status[2:-1].tolist()) <= {Status.TRUNCATED, Status.CORRUPT}


@pytest.mark.parametrize("name", [name for name in FILES if "," not in name])
def test_a_small_file_cut_anywhere_is_truncated(name):
    data = encoded(PHOTO.resize((12, 8)), name, **({"speed": 10} if name == "AVIF" else {}))
    cuts = [data[:length] for length in range(len(data))]
    for cut, found in zip(cuts, hash_images(cuts, workers=1).status.tolist(), strict=True):
        assert fits(name, cut, found), (len(cut), Status(found).name)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_an_image_opened_from_a_cut_file_is_truncated(name):
    assert status(Image.open(BytesIO(FILES[name][:-300]))) == Status.TRUNCATED


TINY = PHOTO.resize((12, 8))
SMALL_FILES = {
    "AVIF": encoded(TINY, "AVIF", speed=10),
    "BMP": encoded(TINY, "BMP"),
    "BMP, grey": encoded(TINY.convert("L"), "BMP"),
    "GIF": encoded(TINY.quantize(16), "GIF"),
    "GIF, grey": encoded(TINY.convert("L"), "GIF"),
    "JPEG": encoded(TINY, "JPEG"),
    "JPEG, grey": encoded(TINY.convert("L"), "JPEG"),
    "JPEG, progressive": encoded(TINY, "JPEG", progressive=True),
    "JPEG, whole chroma": encoded(TINY, "JPEG", subsampling=0, quality=95),
    "JPEG, CMYK": encoded(TINY.convert("CMYK"), "JPEG"),
    "PNG": encoded(TINY, "PNG"),
    "PNG, grey": encoded(TINY.convert("L"), "PNG"),
    "PNG, alpha": encoded(TINY.convert("RGBA"), "PNG"),
    "PNG, 16 bits": encoded(TINY.convert("I;16"), "PNG"),
    "PNG, transparent colour": encoded(TINY, "PNG", transparency=(1, 2, 3)),
    "TIFF": encoded(TINY, "TIFF"),
    "TIFF, grey": encoded(TINY.convert("L"), "TIFF"),
    "TIFF, LZW": encoded(TINY, "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encoded(TINY, "TIFF", compression="jpeg"),
    "TIFF, turned": encoded(TINY, "TIFF", tiffinfo={274: 6}),
    "WEBP": encoded(TINY, "WEBP"),
    "WEBP, lossless": encoded(TINY, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_file_cut_at_any_byte_is_decoded_only_where_pillow_decodes_it(name, monkeypatch):
    """By both ways to decode a JPEG; and a host that tells Pillow to fill what is missing changes nothing."""
    data = SMALL_FILES[name]
    cuts = [data[:length] for length in range(len(data) + 1)]
    if name.startswith("PNG"):
        cuts.insert(0, data[:-12] + struct.pack(">I4s10x", 100, b"IDAT"))  # more samples than it needs, cut short
    decodes = [still_decodes(cut) for cut in cuts]
    assert decodes[-1]
    assert not all(decodes)
    for jpeg in ("colour", "luma"):
        hashes = hash_images(cuts, workers=1, jpeg=jpeg)
        for cut, status_of_cut, is_whole in zip(cuts, hashes.status.tolist(), decodes, strict=True):
            assert (status_of_cut == Status.OK) == is_whole, (jpeg, len(cut), Status(status_of_cut).name)
            assert fits(name, cut, status_of_cut), (jpeg, len(cut), Status(status_of_cut).name)
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            tolerant = hash_images(cuts, workers=1, jpeg=jpeg)
        assert np.array_equal(tolerant.status, hashes.status)
        assert np.array_equal(tolerant.bits, hashes.bits)


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_host_that_lets_pillow_fill_what_is_damaged_changes_nothing(name, rng, monkeypatch):
    files = [damaged(SMALL_FILES[name], rng) for _ in range(200)]
    hashes = hash_images(files, workers=1)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    tolerant = hash_images(files, workers=1)
    assert np.array_equal(tolerant.status, hashes.status)
    assert np.array_equal(tolerant.bits, hashes.bits)
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "the host's switch was touched"


# --- damaged -------------------------------------------------------------------------------------------------------


def damaged(data, random):
    """A copy with one to sixteen bytes changed, more often in the first 400, where the headers are."""
    copy = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at = random.integers(min(len(copy), 400) if random.random() < 0.6 else len(copy))
        copy[at] = random.choice((0, 255, int(random.integers(256)), copy[at] ^ 1 << int(random.integers(8))))
    return bytes(copy)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_get_a_status_and_do_not_raise(name, rng):
    pictures = [damaged(FILES[name], rng) for _ in range(300)]
    hashes = hash_images(pictures, workers=1)
    assert len(hashes) == 300
    found = {Status(value) for value in hashes.status.tolist()}
    assert Status.OK in found or name.startswith("PNG"), "PNG has checksums"
    assert found & {Status.CORRUPT, Status.TRUNCATED}
    assert not found & {Status.EMPTY, Status.TOO_MANY_BYTES, Status.CANNOT_READ, Status.UNSUPPORTED_INPUT}
    bad = hashes.status != Status.OK
    assert not hashes.bits[bad].any()
    assert np.all(hashes.quality[bad] == UNKNOWN_QUALITY)
    assert np.all(hashes.quality[~bad] <= 100)


BEGINNINGS = [data[: SIGNATURE[name.partition(",")[0]] + more] for name, data in FILES.items() for more in (0, 40)]
ONE = PictureHasher(PDQ, Views.UPRIGHT, DecodeLimits(max_pixels=1_000_000))


@settings(max_examples=400, deadline=None, database=None)
@given(beginning=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=400))
def test_anything_after_a_beginning_gets_a_status(beginning, rest):
    hashes = ONE.hash([beginning + rest])
    assert Status(int(hashes.status[0])) in Status
    assert Status(int(hashes.status[0])) != Status.EMPTY


@settings(max_examples=300, deadline=None, database=None)
@given(data=st.binary(max_size=64), name=st.sampled_from(FORMATS))
def test_containers_are_looked_at_without_faults(data, name):
    for bytes_given in (data, FILES[name][: SIGNATURE[name]] + data):
        assert container.ends_early(name, bytes_given) in (True, False)
        assert 1 <= container.frames_up_to(name, bytes_given, 5) <= 6


def test_directories_of_a_tiff_that_lead_nowhere():
    for far in (2**63 - 1, 2**63, 2**64 - 1):
        assert status(struct.pack("<2sHHHQ", b"II", 43, 8, 0, far) + bytes(100)) == Status.TRUNCATED
    assert status(struct.pack("<2sHI", b"II", 42, 2**32 - 1) + bytes(100)) == Status.TRUNCATED


@pytest.mark.parametrize(("name", "where"), [("TIFF", ("<I", 4, "<H", 12)), ("TIFF, big", ("<Q", 8, "<Q", 20))])
def test_directories_of_a_tiff_that_lead_round_in_a_circle(name, where):
    offset, offset_at, count, entry = where
    data = bytearray(FILES[name])
    first = struct.unpack_from(offset, data, offset_at)[0]
    following = first + struct.calcsize(count) + struct.unpack_from(count, data, first)[0] * entry
    assert struct.unpack_from(offset, data, following)[0] == 0, "the only one"
    struct.pack_into(offset, data, following, first)
    assert status(bytes(data)) == Status.TOO_MANY_FRAMES


def test_the_frames_of_a_large_gif_are_counted_only_as_far_as_needed():
    """A million frames of 13 bytes, with a limit of 10; the rest is not looked at."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x01\x44\x00"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame * 1_000_000 + b"\x3b"
    seen = []
    sys.settrace(lambda *_: lambda _frame, event, _value: seen.append(event))
    try:
        assert container.frames_up_to("GIF", data, 10) == 11
    finally:
        sys.settrace(None)
    assert len(seen) < 1000
    assert status(data, max_frames=10) == Status.TOO_MANY_FRAMES
