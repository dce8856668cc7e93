"""One picture, whatever it comes as, to pixels. Bytes, a path and a file object take one and the same way.

The pixels are those stored: EXIF orientation is not applied, because banks are filled by tools that do not apply it; a
turned copy is found by looking in eight orientations. TIFF is the exception: Pillow turns it while it loads, for those
tools too. Of an animation the first frame is taken.
"""

import os
import stat
from io import BytesIO
from types import FunctionType, SimpleNamespace
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from ncii_match.decode import container, metadata, modes, planes
from ncii_match.decode.limits import FORMATS, DecodeLimits
from ncii_match.errors import DecodeError, InputError
from ncii_match.outcomes import Status
from ncii_match.values import Picture

JpegRoute = Literal["luma", "colour"]
"""``luma``: the stored luma plane, at a fraction of the size where the hash allows it (docs/accuracy.md). A file can be
made whose luma shows another picture than viewers do (docs/decisions/0020).
``colour``: every pixel in RGB, what hashing the array of the opened file gives, and what viewers show; slower."""

DEFAULT_ROUTE: JpegRoute = "colour"
"""What is hashed is what is seen, whoever made the file."""


def check_route(jpeg: object) -> None:
    """Raise InputError for a ``JpegRoute`` that there is not."""
    if jpeg not in get_args(JpegRoute):
        raise InputError(f"jpeg is {jpeg!r}; choose 'luma' or 'colour'")


def _with_globals(function: Any, **variables: Any) -> Any:
    """The same function of Pillow's, with other values for some variables of its module."""
    return FunctionType(
        function.__code__, function.__globals__ | variables, argdefs=function.__defaults__, closure=function.__closure__
    )


# The host may set ImageFile.LOAD_TRUNCATED_IMAGES, one switch for its process: Pillow then fills what a file lacks with
# black or grey, and says nothing. A part of a picture is no picture here, whatever the host has set; and what the host
# has set stays, for its other threads rely on it. So Pillow's methods that ask the switch are given a copy that is off.
_STRICT = SimpleNamespace(**vars(ImageFile) | {"LOAD_TRUNCATED_IMAGES": False})


class _StrictFile(ImageFile.ImageFile):
    load = _with_globals(ImageFile.ImageFile.load, LOAD_TRUNCATED_IMAGES=False)


class _StrictPngStream(PngImagePlugin.PngStream):
    read = _with_globals(PngImagePlugin.PngStream.read, ImageFile=_STRICT)
    crc = _with_globals(PngImagePlugin.PngStream.crc, ImageFile=_STRICT)
    chunk_IHDR = _with_globals(PngImagePlugin.PngStream.chunk_IHDR, ImageFile=_STRICT)  # noqa: N815 - Pillow's name


class _WholeFrameError(Exception):
    """Not a fault: a decoder has given its frame, which needs no second picture to be copied into."""

    def __init__(self, layout: str, data: bytes) -> None:
        self.layout, self.data = layout, data


class _WholeFrames(ImageFile.ImageFile):
    """For plugins whose decoder gives a frame as bytes: ends loading where Pillow would copy them into an image."""

    def load_prepare(self) -> None:
        if len(self.tile) == 1 and self.tile[0][0] == "raw" and isinstance(self.fp, BytesIO):
            arguments = self.tile[0][3]
            layout = arguments if isinstance(arguments, str) else str((arguments or ("",))[0])
            data = self.fp.getvalue()
            if len(data) == self.width * self.height * _LAYOUTS.get(layout, 0):
                raise _WholeFrameError(layout, data)
        super().load_prepare()


_LAYOUTS = {"RGB": 3, "RGBX": 4, "RGBA": 4}
"""Bytes of a pixel in a frame."""


class _AvifFile(_WholeFrames, AvifImagePlugin.AvifImageFile, _StrictFile):
    pass


class _BmpFile(BmpImagePlugin.BmpImageFile, _StrictFile):
    pass


class _GifFile(GifImagePlugin.GifImageFile, _StrictFile):
    pass


class _JpegFile(JpegImagePlugin.JpegImageFile, _StrictFile):
    load_read = _with_globals(JpegImagePlugin.JpegImageFile.load_read, ImageFile=_STRICT)


class _PngFile(PngImagePlugin.PngImageFile, _StrictFile):
    _open = _with_globals(PngImagePlugin.PngImageFile._open, PngStream=_StrictPngStream)  # noqa: SLF001
    load_end = _with_globals(PngImagePlugin.PngImageFile.load_end, ImageFile=_STRICT)


class _TiffFile(TiffImagePlugin.TiffImageFile, _StrictFile):
    pass


class _WebPFile(_WholeFrames, WebPImagePlugin.WebPImageFile, _StrictFile):
    pass


# The plugins are called by name instead of Image.open, so that the content decides, nothing outside the allowed
# formats is ever parsed, and Pillow's process-wide pixel limit does not stand in for ours.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "AVIF": _AvifFile,
    "BMP": _BmpFile,
    "GIF": _GifFile,
    "JPEG": _JpegFile,
    "PNG": _PngFile,
    "TIFF": _TiffFile,
    "WEBP": _WebPFile,
}


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


Source = bytes | bytearray | memoryview | str | os.PathLike[str] | _Readable | Image.Image | NDArray[Any]
"""What a picture may come as: bytes, a path, a binary file object (read from where it stands), a Pillow image, or
pixels: [h, w] grey or [h, w, 3] RGB (or 4 with alpha) of uint8, bool, uint16 or float."""


def read_picture(
    source: Source, limits: DecodeLimits, scaled_side: int | None = None, jpeg: JpegRoute = DEFAULT_ROUTE
) -> Picture:
    """Decode one picture. Raises DecodeError with the status that names what was wrong, and nothing else.

    scaled_side : a JPEG may be decoded at a fraction while both sides stay at or above this; None: all pixels.
    """
    try:
        if isinstance(source, np.ndarray):
            return _from_array(np.asarray(source), limits)  # asarray: a masked array by its plain samples
        if isinstance(source, Image.Image):
            return _from_image(source, limits)
        return _from_bytes(bytes_of(source, limits), limits, scaled_side, jpeg)
    except MemoryError:
        raise DecodeError(Status.OUT_OF_MEMORY) from None


def contents(source: Source, limits: DecodeLimits) -> Source:
    """What ``read_picture`` can read more than once: the bytes of a path or file, pixels as they are.

    Raises DecodeError.
    """
    try:
        return source if isinstance(source, np.ndarray | Image.Image) else bytes_of(source, limits)
    except MemoryError:
        raise DecodeError(Status.OUT_OF_MEMORY) from None


def bytes_of(source: Any, limits: DecodeLimits) -> bytes:
    """The bytes of a file, a path or a buffer, unparsed. Raises DecodeError, and MemoryError."""
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            # Counted before it is copied, and in bytes: len() of a memoryview counts whatever items it has.
            data = bytes(source) if memoryview(source).nbytes <= limits.max_bytes else None
        elif isinstance(source, str | os.PathLike):
            data = _contents(source, limits.max_bytes)
        elif callable(getattr(source, "read", None)):
            data = _read_up_to(source, limits.max_bytes, limits.max_bytes + 1)
        else:
            raise DecodeError(Status.UNSUPPORTED_INPUT, f"It is a {type(source).__name__}.")
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # a reader raises what it likes: EOFError from gzip, ValueError from a closed file
        raise DecodeError(Status.CANNOT_READ, f"{type(error).__name__}: {error}") from None
    if data is None:
        raise DecodeError(Status.TOO_MANY_BYTES, f"More than the limit of {limits.max_bytes:,} bytes.")
    return data


def _contents(path: str | os.PathLike[str], limit: int) -> bytes | None:
    # O_NONBLOCK: opening a named pipe that nobody writes to must not wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        file_status = os.fstat(descriptor)
        if not stat.S_ISREG(file_status.st_mode):
            raise DecodeError(Status.CANNOT_READ, "It is not an ordinary file.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # Asked for 128 MiB, Python sets aside as much first: 77 us for a file of 112 KB instead of 15.
            return _read_up_to(file, limit, max(file_status.st_size + 1, 65_536))
    finally:  # not left to fdopen: it refuses a directory and leaves it open
        os.close(descriptor)


def _read_up_to(file: _Readable, limit: int, at_once: int) -> bytes | None:
    """What is left to read, or None when that is more than ``limit`` bytes."""
    parts: list[bytes] = []
    left = limit + 1
    while left > 0 and (part := file.read(min(left, at_once))):  # raw and network files may give less than asked for
        if not isinstance(part, bytes):
            raise DecodeError(Status.UNSUPPORTED_INPUT, "The file does not give bytes; open it with mode 'rb'.")
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left > 0 else None


def _from_bytes(data: bytes, limits: DecodeLimits, scaled_side: int | None, jpeg: JpegRoute) -> Picture:
    if not data:
        raise DecodeError(Status.EMPTY)
    name = container.format_of(data)
    if name is None:
        raise DecodeError(Status.NOT_AN_IMAGE)
    if name not in limits.formats:
        allowed = ", ".join(allowed_format for allowed_format in FORMATS if allowed_format in limits.formats)
        raise DecodeError(Status.FORMAT_NOT_ALLOWED, f"It is {name}; allowed are {allowed}.")
    try:
        frames = container.frames_up_to(name, data, limits.max_frames)
        # These two plugins set aside memory for the canvas as soon as they open a file.
        limits.check_pixels(*container.canvas(name, data))
        if name == "PNG":
            data = metadata.bare_png(data)
        image = _opened(name, data)
        limits.check_pixels(*image.size)
        if max(frames, getattr(image, "n_frames", 1) if name in ("AVIF", "WEBP") else 1) > limits.max_frames:
            raise DecodeError(Status.TOO_MANY_FRAMES, f"The limit is {limits.max_frames:,}.")
        height, width = image.height, image.width
        if name == "JPEG" and jpeg == "luma" and image.mode in ("L", "RGB"):
            image.draft("L", None if scaled_side is None else (scaled_side, scaled_side))
        if name == "PNG" and "transparency" in image.info:
            _scale_transparency(image)
        if name != "BMP":  # feed it in one piece: 5 % faster than 64 KiB at a time, but a BMP is as large as its pixels
            image.decodermaxblock = len(data)
        pixels = _pixels_of(name, image, data)
    except (DecodeError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which its host may have set below ours
        raise DecodeError(Status.TOO_MANY_PIXELS, str(error)) from None
    except Exception as error:  # Pillow raises whatever its parsers trip over: SyntaxError, struct.error, KeyError…
        raise DecodeError(_fault(name, data, error), f"{name}: {error}") from None
    if name != "JPEG":
        height, width = pixels.shape[:2]
    scale = getattr(image, "decoderconfig", None) or (1,)
    return Picture(pixels, height, width, scale[0] if name == "JPEG" else 1)


def _fault(name: str, data: bytes, error: Exception) -> Status:
    cut = _says_cut(error) or container.ends_early(name, data)
    return Status.TRUNCATED if cut else Status.CORRUPT


def _says_cut(error: Exception) -> bool:
    # Pillow's plugins turn an EOFError into a SyntaxError with that as its cause.
    return isinstance(error, EOFError) or isinstance(error.__cause__, EOFError) or "truncated" in str(error).lower()


def _opened(name: str, data: bytes) -> ImageFile.ImageFile:
    """The image with its headers read; those of notes only as long as they do no harm."""
    try:
        return _PLUGINS[name](BytesIO(data))
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception:
        bare = metadata.BARE[name](data) if name in metadata.BARE else data
        if len(bare) == len(data):
            raise
        return _PLUGINS[name](BytesIO(bare))


def _pixels_of(name: str, image: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint8]:
    """What ``modes.to_pixels`` gives of a file that is open but not loaded; decoded where it stays, if that can be."""
    samples, core = None, None
    # A JPEG cut before its scan has no tile, nothing to decode. Pillow refuses it only while it has no image core.
    if image.tile and image.mode in planes.CHANNELS and name in _IN_PLACE:
        samples, core = planes.canvas(image.mode, getattr(image, "_tile_size", image.size))  # of a TIFF before turning
        image.im = core
        if name == "JPEG" and image.mode == "RGB" and features.check_feature("libjpeg_turbo"):
            # libjpeg writes four bytes a pixel itself: the same bytes, without a pass of Pillow's that makes them four.
            image.tile = [tile._replace(args=("RGBX", "")) for tile in image.tile]
        if name == "BMP" and _filled_at_once(image, data):
            return samples
    try:
        image.load()
    except _WholeFrameError as frame:
        if frame.layout == "RGBA":
            return modes.to_pixels(Image.frombuffer("RGBA", image.size, frame.data, "raw", "RGBA", 0, 1))
        return np.frombuffer(frame.data, np.uint8).reshape(image.height, image.width, _LAYOUTS[frame.layout])
    is_plain = image.mode in planes.CHANNELS and "transparency" not in image.info
    return samples if samples is not None and image.im is core and is_plain else modes.to_pixels(image)


def _filled_at_once(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Fill an image from samples that lie in its file as they are, all there; False where they do not.

    Loading it would copy the file twice, piece by piece: a quarter of the time for a large BMP.
    """
    tile = image.tile[0] if len(image.tile) == 1 else None
    if tile is None or tile[0] != "raw" or not isinstance(tile[3], tuple) or len(tile[3]) != 3:
        return False
    start, stride = tile[2], tile[3][1]
    samples = memoryview(data)[start : start + stride * image.height]
    if not stride or len(samples) < stride * image.height or tile[1] != (0, 0, *image.size):
        return False
    image.frombytes(samples, "raw", *tile[3])
    image.tile = []
    return True


_IN_PLACE = ("BMP", "JPEG", "PNG", "TIFF")
"""Formats whose plugin fills the image that it finds. A GIF's makes its own; WebP and AVIF give whole frames."""


def _scale_transparency(png: ImageFile.ImageFile) -> None:
    """Bring a PNG's transparent colour to 8 bits; Pillow does so with the samples only."""
    stored, key = png.tile[0].args, png.info["transparency"]
    if stored in ("L;2", "L;4"):
        png.info["transparency"] = key * (85 if stored == "L;2" else 17)
    elif stored == "RGB;16B":
        png.info["transparency"] = tuple(part >> 8 for part in key)


def _from_image(image: Image.Image, limits: DecodeLimits) -> Picture:
    limits.check_pixels(*image.size)
    try:
        image.load()
        pixels = modes.to_pixels(image)
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # a lazily opened file is only parsed here
        raise DecodeError(Status.TRUNCATED if _says_cut(error) else Status.CORRUPT, str(error)) from None
    return Picture(pixels, *pixels.shape[:2])


def _from_array(array: NDArray[Any], limits: DecodeLimits) -> Picture:
    """Pixels given as such: the same rules as for Pillow's modes of the same content."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise DecodeError(Status.UNSUPPORTED_INPUT, f"Its shape is {array.shape}; wanted [h, w] or [h, w, 3].")
    limits.check_pixels(array.shape[1], array.shape[0])
    if array.dtype == np.uint8:
        pixels = array
    elif array.dtype == np.bool_:
        pixels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        pixels = modes.from_16_bits(array)
    elif array.dtype in (np.float32, np.float64):
        pixels = modes.stretch(array, True)
    else:
        raise DecodeError(Status.UNSUPPORTED_INPUT, f"Its samples are {array.dtype}; wanted uint8.")
    pixels = np.ascontiguousarray(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = modes.to_pixels(Image.fromarray(pixels))
    return Picture(pixels, *pixels.shape[:2])


def is_decoded(source: object) -> bool:
    """Whether a picture comes as pixels: an array, or a Pillow image (a lazy one is decoded by whoever uses it)."""
    return isinstance(source, np.ndarray | Image.Image)


def use_one_thread() -> None:
    """Decode AVIF on the calling thread, in all of this process from now on."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def is_single(images: object) -> bool:
    """Whether an object is one picture rather than an iterable of them (a common slip)."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image) or hasattr(
        images, "read"
    )


def decoders() -> dict[str, bool]:
    """Every format that can be allowed, and whether the installed Pillow can decode it."""
    needs = {"AVIF": "avif", "JPEG": "jpg", "PNG": "zlib", "TIFF": "libtiff", "WEBP": "webp"}
    return {name: name not in needs or bool(features.check(needs[name])) for name in FORMATS}
