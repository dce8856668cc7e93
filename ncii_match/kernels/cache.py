"""Where compiled kernels are kept: read from any folder that has them, written to the first that can be written.

Numba alone refuses to start where it can write nowhere, even when every kernel lies compiled in a read-only image. Here
a folder need not be writable to be read. Where nothing can be read or written, kernels are compiled in memory.

Machine code is kept by the name and the features of the processor that it was compiled for. A baseline (``x86-64-v3``)
stands for every processor that has its features, so code that was compiled for one is loaded on any of them.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import llvmlite.binding
from numba.core import caching, config

_LOG = logging.getLogger("ncii_match")

_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}

BASELINES: dict[str, frozenset[str]] = {
    "x86-64-v4": _V4,
    "x86-64-v3": _V3,
    "x86-64-v2": _V2,
    "generic": frozenset(),
}
"""Baselines, fastest first, and the features that a processor needs for each, by LLVM's names (x86-64 psABI, section
3.1.1). ``generic`` is the plain processor of the architecture."""


def usable_baselines() -> list[str]:
    """Baselines whose code this processor can run, fastest first."""
    is_x86 = llvmlite.binding.get_process_triple().startswith("x86_64")
    features = {name for name, is_there in llvmlite.binding.get_host_cpu_features().items() if is_there}
    return [name for name, needed in BASELINES.items() if needed <= features and (is_x86 or name == "generic")]


@cache
def _content_digest(source: str) -> bytes:
    """Of every module beside a kernel's own: pieces of one are compiled into the kernels of another."""
    total = hashlib.sha256()
    for path in sorted(Path(source).parent.glob("*.py")):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.digest()


def folders_for(source: str) -> list[str]:
    """Folders that may hold the compiled kernels of a source file, in the order in which they are looked into.

    Below ``NUMBA_CACHE_DIR``, and nowhere else, when it is set; else the package's own ``__pycache__`` and a folder in
    the user's cache.
    """
    own = f"{Path(source).stem}-{_content_digest(source).hex()[:16]}"
    if config.CACHE_DIR:
        return [os.path.join(os.path.abspath(config.CACHE_DIR), "ncii_match", own)]
    folders = [os.path.join(os.path.dirname(os.path.abspath(source)), "__pycache__")]
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(user):  # without a home folder the tilde stays
        folders.append(os.path.join(user, "ncii_match", "kernels", own))
    return folders


class _Locator:
    """What Numba asks about one kernel and one folder."""

    def __init__(self, function: Callable[..., Any], source: str, folder: str) -> None:
        self._py_file, self._line, self._folder = source, function.__code__.co_firstlineno, folder

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> bytes:
        return _content_digest(self._py_file)

    def get_disambiguator(self) -> str:
        return str(self._line)

    def ensure_cache_path(self) -> None:
        os.makedirs(self._folder, exist_ok=True)


class _Locators:
    """Stands where Numba expects a class of locators, for one folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def from_function(self, function: Callable[..., Any], source: str) -> _Locator:
        return _Locator(function, source, self._folder)


class _ForProcessor(NamedTuple):
    """Stands where Numba expects a code generator: it is asked for nothing but what the code was compiled for."""

    target: tuple[str, str, str]

    def magic_tuple(self) -> tuple[str, str, str]:
        return self.target


class _Folder(caching.FunctionCache):  # type: ignore[misc]
    """Numba's cache of one kernel in one folder."""

    def __init__(self, function: Callable[..., Any], folder: str) -> None:
        locators = {"_locator_classes": [_Locators(folder)]}
        self._impl_class = type("_Implementation", (caching.CompileResultCacheImpl,), locators)
        super().__init__(function)

    def load_for(self, signature: Any, context: Any, target: tuple[str, str, str]) -> Any:
        """The kernel compiled for a processor, or None."""
        stored = self._cache_file.load(self._index_key(signature, _ForProcessor(target)))
        return None if stored is None else self._impl.rebuild(context, stored)

    def save_over(self, signature: Any, compiled: Any) -> None:
        """Keep a kernel, whatever stands there. Raises OSError where nothing can be written."""
        try:
            self.save_overload(signature, compiled)
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - a damaged index: Numba reads it before it adds to it
            self.flush()
            self.save_overload(signature, compiled)


class KernelCache(caching._Cache):  # type: ignore[misc]  # noqa: SLF001
    """The cache of one kernel, over all folders. Stands where Numba expects a ``FunctionCache``.

    folder : str, where the compiled kernel was read from or written to; empty while it is in memory only.
    target : str, name of the processor that it was compiled for; empty before.
    accepts_baselines : bool, whether code for a baseline will do. ``warmup`` wants that of one processor.
    """

    accepts_baselines: ClassVar[bool] = True

    def __init__(self, function: Callable[..., Any]) -> None:
        self._folders = [_Folder(function, folder) for folder in folders_for(function.__code__.co_filename)]
        self.folder, self.target = "", ""

    @property
    def cache_path(self) -> str:
        """As Numba calls ``folder``."""
        return self.folder

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled kernel; None where no folder has one that this processor can run."""
        context.refresh()
        host = context.codegen().magic_tuple()
        baselines = [(host[0], name, "") for name in usable_baselines()] if self.accepts_baselines else []
        for target in (host, *baselines):
            for folder in self._folders:
                try:
                    compiled = folder.load_for(signature, context, target)
                except Exception:  # noqa: BLE001, S112 - out of reach or damaged: another folder has it, or the compiler
                    continue
                if compiled is not None:
                    self.folder, self.target = folder.cache_path, target[1]
                    return compiled
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a kernel that was just compiled, in the first folder that takes it."""
        self.target = compiled.codegen.magic_tuple()[1]
        for folder in self._folders:
            try:
                folder.save_over(signature, compiled)
            except OSError:
                continue
            self.folder = folder.cache_path
            return
        _say_that_nothing_is_kept(tuple(folder.cache_path for folder in self._folders))

    def enable(self) -> None:
        """It always is."""

    def disable(self) -> None:
        """It never is."""

    def flush(self) -> None:
        """Nothing is ever in the way: a kernel's source is part of its name."""


@cache
def _say_that_nothing_is_kept_below(roots: tuple[str, ...]) -> None:
    _LOG.warning(
        "Compiled kernels cannot be kept: none of %s can be written. Each process compiles them anew, which takes half "
        "a minute. Run 'ncii-match warmup' once as a user who may write there, or set NUMBA_CACHE_DIR to a folder.",
        ", ".join(roots),
    )


def _say_that_nothing_is_kept(folders: tuple[str, ...]) -> None:
    """Say it once a process, whatever kernel it is about."""
    roots = dict.fromkeys(folder if folder.endswith("__pycache__") else os.path.dirname(folder) for folder in folders)
    _say_that_nothing_is_kept_below(tuple(roots))
