"""One picture gives one hash whatever it comes as; of animations the first frame; limits; nothing left open."""

import array
import gzip
import os
import subprocess
import sys
from contextlib import closing, contextmanager, nullcontext
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageOps

from ncii_match.decode import container
from ncii_match.decode.image import read_picture
from ncii_match.decode.limits import FORMATS, DecodeLimits
from ncii_match.errors import DecodeError, InputError
from ncii_match.ingest import hash_images
from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PDQ_512, PHASH, View, Views

PHOTO = Image.fromarray(np.asarray(Image.open(PHOTOS / "astronaut.png").convert("RGB"))[:300, 50:450])
FRAMES = [PHOTO.resize((120, 90)), ImageOps.flip(PHOTO.resize((120, 90))), ImageOps.invert(PHOTO.resize((120, 90)))]
STILL = {
    "AVIF": {"speed": 10},
    "BMP": {},
    "GIF": {},
    "JPEG": {"quality": 90},
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
}
LOSSLESS = ("BMP", "PNG", "TIFF", "WEBP")
ANIMATED = {"AVIF": {"speed": 10}, "GIF": {}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def encoded(image, file_format, **options):
    file = BytesIO()
    image.save(file, file_format, **(STILL[file_format] | options))
    return file.getvalue()


def animated(file_format, frames=FRAMES):
    """Frames in one file, in colours that a GIF palette holds without loss."""
    few = [frame.quantize(64).convert("RGB") for frame in frames]
    return encoded(few[0], file_format, save_all=True, append_images=few[1:], **ANIMATED[file_format])


def status(source, **options):
    return Status(int(hash_images([source], workers=1, **options).status[0]))


def limited(source, **limits):
    return status(source, limits=DecodeLimits(**limits))


def rows(source, **options):
    """Bits and quality of all rows, as one value to compare."""
    hashes = hash_images([source], workers=1, **options)
    assert np.all((hashes.status == Status.OK) | (hashes.view >= View.TRIMMED_UPRIGHT))  # most have no border
    return hashes.to_hex(), hashes.quality.tolist()


def distance(one, other):
    one, other = (hash_images([source], workers=1) for source in (one, other))
    return int(np.bitwise_count(one.bits ^ other.bits).sum())


class Stingy(BytesIO):
    """Gives less at a time than asked for, as raw and network files do."""

    def read(self, size=-1):
        return super().read(min(size, 1000))


def saved(data, folder):
    path = folder / "picture.bin"
    path.write_bytes(data)
    return path


def inside(data):
    """A file object that stands where the picture begins, after 7 other bytes."""
    file = BytesIO(b"other: " + data)
    file.seek(7)
    return file


FILE_ROUTES = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "memoryview with gaps": lambda data, _: memoryview(b"".join(bytes((one, 0)) for one in data))[::2],
    "path": saved,
    "path as text": lambda data, folder: str(saved(data, folder)),
    "BytesIO": lambda data, _: BytesIO(data),
    "file in the middle": lambda data, _: inside(data),
    "file": lambda data, folder: saved(data, folder).open("rb"),
    "file without buffer": lambda data, folder: FileIO(saved(data, folder)),
    "file that gives little at a time": lambda data, _: Stingy(data),
    "gzip file": lambda data, _: gzip.GzipFile(fileobj=BytesIO(gzip.compress(data))),
}
PIXEL_ROUTES = {
    "image opened": lambda data, _: Image.open(BytesIO(data)),
    "image converted": lambda data, _: Image.open(BytesIO(data)).convert("RGB"),
    "array": lambda data, _: np.asarray(Image.open(BytesIO(data)).convert("RGB")),
}


ROUTES = FILE_ROUTES | PIXEL_ROUTES


@contextmanager
def by(route, data, folder):
    """The picture as the route has it, closed afterwards where that is possible."""
    source = ROUTES[route](data, folder)
    with closing(source) if hasattr(source, "close") else nullcontext():
        yield source


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("file_format", LOSSLESS)
def test_every_route_of_a_lossless_picture_gives_one_hash(file_format, route, tmp_path):
    with by(route, encoded(PHOTO, file_format), tmp_path) as source:
        assert rows(source, views=Views.ALL) == rows(PHOTO, views=Views.ALL)


@pytest.mark.parametrize("algorithm", [PDQ, PDQ_512, PHASH], ids=str)
def test_every_route_of_a_jpeg_gives_one_hash(algorithm, tmp_path):
    """Files agree with each other; decoded in colour, they agree with the pixels as well."""
    data = encoded(PHOTO, "JPEG")
    colour = rows(np.asarray(Image.open(BytesIO(data))), algorithm=algorithm)
    for route in ROUTES:
        with by(route, data, tmp_path) as source:
            assert rows(source, algorithm=algorithm, jpeg="colour") == colour, route
    for route in FILE_ROUTES:
        with by(route, data, tmp_path) as source:
            assert rows(source, algorithm=algorithm) == rows(data, algorithm=algorithm), route
    assert distance(data, PHOTO) <= 10


def test_a_file_is_the_same_by_path_and_by_bytes_unlike_perception():
    for path in sorted(PHOTOS.glob("*.[pj][np]g")):
        assert rows(path) == rows(path.read_bytes()) == rows(str(path)), path.name


def test_a_file_object_is_read_from_where_it_stands():
    file = BytesIO(encoded(FRAMES[0], "PNG") + encoded(FRAMES[1], "PNG"))
    file.seek(len(encoded(FRAMES[0], "PNG")))
    assert rows(file) == rows(FRAMES[1]) != rows(FRAMES[0])


def test_an_opened_image_can_be_used_after_it_was_hashed():
    image = Image.open(BytesIO(encoded(PHOTO, "PNG")))
    assert rows(image) == rows(image)
    assert np.array_equal(np.asarray(image), np.asarray(PHOTO))


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_content_says_what_a_file_is_not_its_name(file_format, tmp_path):
    path = tmp_path / "picture.txt"
    path.write_bytes(encoded(PHOTO, file_format))
    assert distance(path, PHOTO) <= 10


# --- which pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ANIMATED)
def test_of_an_animation_the_first_frame_is_hashed(file_format):
    data = animated(file_format)
    assert Image.open(BytesIO(data)).n_frames == 3
    first = FRAMES[0].quantize(64).convert("RGB")
    if file_format == "AVIF":
        assert distance(data, first) <= 10 < distance(data, FRAMES[1])
    else:
        assert rows(data) == rows(first) != rows(FRAMES[1])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_stored_pixels_are_hashed_whatever_orientation_is_noted(file_format):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(PHOTO, file_format, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(BytesIO(turned)))
    assert shown.size == PHOTO.size[::-1]
    assert rows(turned) == rows(encoded(PHOTO, file_format)) != rows(shown)
    views = hash_images([turned], views=Views.DIHEDRAL, jpeg="colour").bits
    distances = np.bitwise_count(views ^ hash_images([shown]).bits).sum(1)
    assert distances.min() == distances[View.TURN_RIGHT] == 0, "the eight orientations find it"


def test_a_tiff_is_turned_by_pillow_on_every_route():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(PHOTO, "TIFF", exif=exif)
    assert rows(turned) == rows(Image.open(BytesIO(turned))) == rows(PHOTO.transpose(Image.Transpose.ROTATE_270))


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_pixels_up_to_the_limit_pass_and_one_more_does_not(file_format):
    data, most = encoded(PHOTO, file_format), PHOTO.width * PHOTO.height
    assert limited(data, max_pixels=most) == Status.OK
    assert limited(data, max_pixels=most - 1) == Status.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    "source", [PHOTO, np.asarray(PHOTO), np.asarray(PHOTO.convert("L"))], ids=["image", "rgb", "grey"]
)
def test_pixels_in_memory_are_limited_too(source):
    most = PHOTO.width * PHOTO.height
    assert limited(source, max_pixels=most) == Status.OK
    assert limited(source, max_pixels=most - 1) == Status.TOO_MANY_PIXELS


def test_an_image_that_was_only_opened_is_limited_before_it_is_decoded():
    image = Image.open(BytesIO(encoded(PHOTO, "PNG")))
    assert limited(image, max_pixels=1000) == Status.TOO_MANY_PIXELS
    assert image.tile, "not decoded"


@pytest.mark.parametrize("route", FILE_ROUTES)
def test_bytes_up_to_the_limit_pass_and_one_more_does_not(route, tmp_path):
    data = encoded(FRAMES[0], "PNG")
    for most, expected in ((len(data), Status.OK), (len(data) - 1, Status.TOO_MANY_BYTES)):
        with by(route, data, tmp_path) as source:
            assert limited(source, max_bytes=most) == expected


def test_a_memoryview_is_measured_in_bytes_not_in_items():
    wide = memoryview(array.array("Q", bytes(800)))
    assert len(wide) == 100
    assert limited(wide, max_bytes=799) == Status.TOO_MANY_BYTES
    assert limited(wide, max_bytes=800) == Status.NOT_AN_IMAGE


@pytest.mark.parametrize("file_format", ANIMATED)
def test_frames_up_to_the_limit_pass_and_one_more_does_not(file_format):
    data = animated(file_format)
    assert limited(data, max_frames=3) == Status.OK
    assert limited(data, max_frames=2) == Status.TOO_MANY_FRAMES
    assert limited(encoded(PHOTO, file_format), max_frames=1) == Status.OK


@pytest.mark.parametrize("file_format", FORMATS)
def test_only_the_formats_allowed_are_decoded(file_format):
    data = encoded(PHOTO, file_format)
    assert limited(data, formats=frozenset({file_format})) == Status.OK
    assert limited(data, formats=frozenset(FORMATS) - {file_format}) == Status.FORMAT_NOT_ALLOWED


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_frames"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None])
def test_limits_are_whole_numbers_of_at_least_1(name, value):
    with pytest.raises(InputError, match=name):
        DecodeLimits(**{name: value})
    assert getattr(DecodeLimits(**{name: 1}), name) == 1


def test_limits_know_their_formats():
    with pytest.raises(InputError, match=r"unknown formats HEIF; known are AVIF, .*WEBP"):
        DecodeLimits(formats=frozenset({"HEIF", "PNG"}))
    assert DecodeLimits().formats == frozenset(FORMATS)


def test_a_decode_error_names_its_status_and_what_was_given():
    with pytest.raises(DecodeError, match=r"more pixels than the limit. 400 x 300; the limit is 9 pixels") as caught:
        read_picture(encoded(PHOTO, "PNG"), DecodeLimits(max_pixels=9))
    assert caught.value.status == Status.TOO_MANY_PIXELS


# --- what the host does not notice ---------------------------------------------------------------------------------


def grown_gif(side):
    """43 bytes: a canvas of 10 x 10, and a frame to be disposed of that reaches far out of it."""
    screen = b"GIF89a\x0a\x00\x0a\x00\x80\x00\x00" + bytes(6) + b"\x21\xf9\x04\x08\x00\x00\x00\x00"
    return screen + b"\x2c\x00\x00\x00\x00" + side.to_bytes(2, "little") * 2 + b"\x00\x02\x02\x4c\x01\x00;"


def test_the_canvas_is_checked_before_memory_is_set_aside_for_it():
    assert limited(grown_gif(200), max_pixels=40_000) == Status.TRUNCATED
    assert limited(grown_gif(200), max_pixels=39_999) == Status.TOO_MANY_PIXELS


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (16383, 2)])
def test_the_canvas_of_a_webp_is_read_from_each_kind_of_header(size, mode, lossless):
    data = encoded(Image.new(mode, size), "WEBP", lossless=lossless)
    assert container.canvas("WEBP", data) == size
    assert container.canvas("WEBP", data[:24]) == (0, 0)


def test_pillows_own_limit_is_no_damage(monkeypatch):
    """Some of its parsers ask it again; a host that set it low gets the status that says so."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for file_format in FORMATS:
        assert status(encoded(PHOTO, file_format)) in (Status.OK, Status.TOO_MANY_PIXELS)
    assert status(grown_gif(200)) == Status.TOO_MANY_PIXELS


def test_bombs_take_no_memory():
    """Run apart, because the peak of a process never falls again. Each would take 112 MB to 3.6 GB."""
    script = """if True:
        import resource, zlib, struct, sys
        from io import BytesIO
        from PIL import Image
        from ncii_match.ingest import hash_images
        from ncii_match.outcomes import Status
        from test_decode import grown_gif

        def chunk(name, data):
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        def png(width, height):
            deflate = zlib.compressobj(9)
            rows = b"".join(deflate.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + deflate.flush()
            header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
            return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

        def webp(side):
            file = BytesIO()
            Image.new("RGB", (9, 9)).save(file, "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
            size = (side - 1).to_bytes(3, "little")
            return file.getvalue()[:24] + size * 2 + file.getvalue()[30:]

        bombs = [png(30_000, 30_000), grown_gif(13_000), grown_gif(65_535), webp(16_000)]
        hash_images([png(64, 64)], workers=1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        statuses = hash_images(bombs, workers=1).status.tolist()
        assert statuses == [Status.TOO_MANY_PIXELS] * 4, statuses
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here,
        env=os.environ | {"PYTHONPATH": f"{here.parent}:{here}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8, "megabytes"


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_open(tmp_path):
    good = saved(encoded(PHOTO, "PNG"), tmp_path)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:1000])
    os.mkfifo(tmp_path / "pipe")
    sources = [good, tmp_path / "cut", tmp_path, tmp_path / "pipe", tmp_path / "missing", "/dev/zero"]
    before = descriptors()
    for workers in (1, 2):
        hashes = hash_images(sources * 5, workers=workers)
        assert set(hashes.status.tolist()) == {Status.OK, Status.TRUNCATED, Status.CANNOT_READ}
    assert limited(good, max_bytes=10) == Status.TOO_MANY_BYTES
    assert limited(good, max_pixels=10) == Status.TOO_MANY_PIXELS
    assert descriptors() == before
