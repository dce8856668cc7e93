"""How every kernel of the package is compiled, in one place.

A kernel is compiled for one fixed signature. Inputs are declared read-only, which Numba lets a writable array
satisfy but not the other way round, so a memory-mapped bank and a fresh array run the same machine code and
nothing is compiled a second time in the middle of a request.

``cache.py`` says where compiled code is kept.
"""

import os
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import llvmlite.binding
import numba
from numba import types

from ncii_match.kernels.cache import KernelCache

KernelT = TypeVar("KernelT", bound=Callable[..., Any])

COMPILED: dict[str, Callable[..., Any]] = {}
"""Every compiled function by ``module.name``: the house test looks for a naive twin of each."""

u8, u16, u32, u64 = types.uint8, types.uint16, types.uint32, types.uint64
i32, i64 = types.int32, types.int64
f32, f64 = types.float32, types.float64


def const(dtype: Any, ndim: int) -> Any:
    """An input array: C-contiguous, read-only accepted."""
    return types.Array(dtype, ndim, "C", readonly=True)


def filled(dtype: Any, ndim: int) -> Any:
    """An output or scratch array: C-contiguous, allocated by the caller."""
    return types.Array(dtype, ndim, "C")


def kernel(result: Any, *arguments: Any) -> Callable[[KernelT], KernelT]:
    """Compile a function for exactly this signature: no GIL, no threads of its own, no reordered arithmetic."""

    def compile_for(function: KernelT) -> KernelT:
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
        if not numba.config.DISABLE_JIT:
            compiled._cache = KernelCache(function)  # noqa: SLF001 - njit(cache=True) would refuse a read-only folder
            compiled.compile(result(*arguments))
            compiled.disable_compile()
        COMPILED[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = compiled
        return compiled

    return compile_for


def part(function: KernelT) -> KernelT:
    """A piece of a kernel, compiled into its caller and never called from Python."""
    return numba.njit(nogil=True, error_model="numpy")(function)


def compile_all() -> list[str]:
    """Import every kernel module, which compiles its kernels or loads them from the cache; their names."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return sorted(COMPILED)


def cache_folder() -> str:
    """Where compiled kernels are kept, for a person to read."""
    compile_all()
    if numba.config.DISABLE_JIT:
        return "none: the compiler is switched off"
    folders = sorted({_cache_of(compiled).folder for compiled in COMPILED.values()} - {""})
    roots = sorted({folder if folder.endswith("__pycache__") else os.path.dirname(folder) for folder in folders})
    return ", ".join(roots) or "none: no folder can be written, so each process compiles in memory"


def compiled_for() -> list[str]:
    """Processors or baselines that the kernels were compiled for; one, unless some were compiled later than others."""
    compile_all()
    return [] if numba.config.DISABLE_JIT else sorted({_cache_of(compiled).target for compiled in COMPILED.values()})


def _cache_of(compiled: Any) -> KernelCache:
    kernel_cache: KernelCache = compiled._cache  # noqa: SLF001
    return kernel_cache


def processor() -> tuple[str, list[str]]:
    """Name of the processor that kernels are compiled for, and those of its features that matter to them."""
    features = llvmlite.binding.get_host_cpu_features()
    relevant = ("sse4.2", "popcnt", "avx2", "fma", "avx512f", "avx512bw", "avx512vpopcntdq", "neon", "sve")
    return llvmlite.binding.get_host_cpu_name(), [name for name in relevant if features.get(name)]
