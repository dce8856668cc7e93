"""The samples of a Pillow image where they lie, without a copy.

``np.asarray(image)`` has Pillow encode the image into bytes, piece by piece, with Python's interpreter lock held, and
joins the pieces: 40 ms for 12 megapixels in colour, and twice their memory. Two ways around it:

A picture that is decoded here is decoded into an array of ours (``canvas``). Pillow writes to it as to any image of its
own; ``Image.frombuffer`` makes images over foreign memory in the same way. Nothing outlives the array, and no setting
of Pillow that others in the process would feel is touched.

Of an image that somebody else made, Pillow hands out the address through Arrow's C data interface, which is fixed for
good (https://arrow.apache.org/docs/format/CDataInterface.html), where its samples lie in one piece. Those of more than
16 MiB do not, as a rule; they are copied, once.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CHANNELS = {"L": 1, "RGB": 4}
"""Samples of a pixel in memory, by mode. Pillow keeps colours in four bytes, of which the last says nothing."""


class _ArrowArray(ctypes.Structure):
    """``struct ArrowArray`` up to its children."""


_ArrowArray._fields_ = (
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
)

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Lent:
    """Memory that Pillow keeps until this object goes; numpy's arrays over it hold it."""

    def __init__(self, image: Image.Image) -> None:
        channels = CHANNELS[image.mode]
        self._capsule = image.__arrow_c_array__()[1]
        array = _ArrowArray.from_address(_pointer(self._capsule, b"arrow_array"))
        pixels, is_list = image.width * image.height, channels > 1
        if (array.length, array.offset, array.n_children) != (pixels, 0, int(is_list)):
            raise ValueError("not one value a pixel, in one piece")
        samples = array.children[0].contents if is_list else array
        if (samples.length, samples.offset, samples.n_buffers) != (pixels * channels, 0, 2):
            raise ValueError(f"not {channels} samples a pixel, in one piece")
        self.__array_interface__ = {
            "data": (samples.buffers[1], True), "shape": _shape(image.mode, image.size), "typestr": "|u1", "version": 3,
        }  # fmt: skip


def _shape(mode: str, size: tuple[int, int]) -> tuple[int, ...]:
    width, height = size
    return (height, width) if CHANNELS[mode] == 1 else (height, width, CHANNELS[mode])


Memory = Callable[[tuple[int, ...]], "NDArray[np.uint8] | None"]
"""Black samples of a shape, in memory of its own; None where it has none. May raise MemoryError."""

_memories: list[Memory] = []


def draw_into(memory: Memory) -> None:
    """Have canvases in this memory first, in all of this process from now on: for one that decodes and nothing else."""
    _memories[:] = [memory]


def canvas(mode: str, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Any]:
    """Black samples, and Pillow's image core over them: what is drawn into the core is in the samples.

    mode : ``L`` or ``RGB``.
    size : width and height, neither 0.
    The samples are uint8 [h, w], or [h, w, 4] of which the last is not a colour.
    """
    shape = _shape(mode, size)
    samples = _memories[0](shape) if _memories else None
    if samples is None:
        samples = np.zeros(shape, np.uint8)
    return samples, Image.core.map_buffer(samples, size, "raw", 0, (mode, 0, 1))  # type: ignore[attr-defined]


def samples_of(image: Image.Image) -> NDArray[np.uint8]:
    """Samples of a loaded image of mode ``L`` or ``RGB``, as ``canvas`` has them; read-only.

    A copy where they are in several pieces. An array that is not a copy shows what is drawn into the image later.
    Raises ValueError for another mode.
    """
    if image.mode not in CHANNELS:
        raise ValueError(f"the mode is {image.mode}; it must be L or RGB")
    if not (image.width and image.height):
        return np.zeros(_shape(image.mode, image.size), np.uint8)
    with suppress(ValueError):  # Pillow cuts images of more than 16 MiB, and does not own those over foreign memory
        return np.asarray(_Lent(image))
    samples, core = canvas(image.mode, image.size)
    core.paste(image.im, (0, 0, *image.size))
    samples.flags.writeable = False
    return samples
