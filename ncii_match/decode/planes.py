"""The samples of a grey Pillow image where they lie, without a copy.

``np.asarray(image)`` has Pillow encode the image into bytes, piece by piece, with Python's interpreter lock held, and
joins the pieces: half a millisecond at 1080p, in which no other thread runs. Through Arrow's C data interface, which is
fixed for good (https://arrow.apache.org/docs/format/CDataInterface.html), Pillow hands out the address instead.
"""

import ctypes
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class _ArrowArray(ctypes.Structure):
    """``struct ArrowArray`` up to its buffers."""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    )


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Lent:
    """Memory that Pillow keeps until this object goes; numpy's arrays over it hold it."""

    def __init__(self, image: Image.Image) -> None:
        self._capsule = image.__arrow_c_array__()[1]
        array = _ArrowArray.from_address(_pointer(self._capsule, b"arrow_array"))
        if (array.length, array.offset, array.n_buffers) != (image.width * image.height, 0, 2):
            raise ValueError("not one sample a pixel, in one piece")
        shape = image.height, image.width
        self.__array_interface__ = {"data": (array.buffers[1], True), "shape": shape, "typestr": "|u1", "version": 3}


def grey_samples(image: Image.Image) -> NDArray[np.uint8]:
    """Samples uint8 [h, w] of a loaded image of mode ``L``; read-only. A copy where they are in several pieces.

    An array that is not a copy shows what is drawn into the image later. Raises ValueError for another mode.
    """
    if image.mode != "L":
        raise ValueError(f"the mode is {image.mode}; it must be L")
    if image.width and image.height:
        with suppress(ValueError):  # Pillow cuts images of more than 16 MiB
            return np.asarray(_Lent(image))
    return np.asarray(image)
