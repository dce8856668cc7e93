"""``ncii-match doctor`` and ``warmup``: is this installation whole, exact and ready."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from ncii_match import __version__
from ncii_match.cli.fixtures import fixtures
from ncii_match.cli.terminal import AsJson, Exit, emit, out, say
from ncii_match.errors import InputError

LIBRARIES = ("numpy", "numba", "llvmlite", "faiss-cpu", "pillow", "pyarrow", "sqlalchemy")
"""What every installation has."""


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # reads through the mail parser, slowly

    versions = {"ncii_match": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def _checks() -> Iterator[tuple[str, bool, str]]:
    """Name, whether it holds, and what was seen."""
    missing = [name for name, text in _versions().items() if text == "missing"]
    yield "libraries", not missing, "all present" if not missing else f"missing: {', '.join(missing)}"
    yield _golden("pdq")
    yield _golden("phash")
    yield _boundary()
    yield _formats()


def _golden(name: str) -> tuple[str, bool, str]:
    """Hashes of the bundled photographs in eight orientations, against those made by pdqhash and ImageHash."""
    from ncii_match.ingest import hash_images
    from ncii_match.values import PDQ, PHASH, Hashes, Views

    algorithm = PDQ if name == "pdq" else PHASH
    rows = json.loads((fixtures() / "vectors" / "photos.json").read_text())["rows"]
    paths = [fixtures() / "photos" / row["photo"] for row in rows]
    ours = hash_images(paths, algorithm, views=Views.DIHEDRAL)
    golden = Hashes.from_hex([text for row in rows for text in row[name].values()], algorithm)
    off = int(np.bitwise_count(ours.bits ^ golden.bits).sum())
    return f"golden vectors, {algorithm}", off == 0, f"{off} bits off in {len(golden)} hashes"


def _boundary() -> tuple[str, bool, str]:
    """Entries planted at, inside and outside the radius are found, found and not found."""
    from ncii_match.index import build_index
    from ncii_match.values import PDQ, PDQ_THRESHOLD, Hashes

    query = np.random.default_rng(0).integers(0, 256, (1, PDQ.nbytes), np.uint8)
    flipped = np.repeat(np.unpackbits(query, axis=1), 3, axis=0)
    for row, bits in enumerate((PDQ_THRESHOLD - 1, PDQ_THRESHOLD, PDQ_THRESHOLD + 1)):
        flipped[row, :bits] ^= 1
    index = build_index(np.arange(3), Hashes(PDQ, np.packbits(flipped, axis=1)))
    distances = index.search(Hashes(PDQ, query), PDQ_THRESHOLD).distances.tolist()
    return (
        "search at the radius",
        distances == [PDQ_THRESHOLD - 1, PDQ_THRESHOLD],
        f"{index.engine} found distances {distances}",
    )


def _formats() -> tuple[str, bool, str]:
    from ncii_match.decode.image import decoders

    formats = decoders()
    missing = [name for name, is_there in formats.items() if not is_there]
    return "picture formats", not missing, ", ".join(formats) if not missing else f"Pillow lacks {', '.join(missing)}"


def doctor_command(as_json: AsJson = False) -> None:
    """Check this installation: versions, processor, kernel cache, golden vectors, search at the radius, formats.

    Exit code 1 when a check fails. Example: ncii-match doctor
    """
    from ncii_match.kernels.jit import cache_folder, compiled_for, processor
    from ncii_match.sandbox.confine import level

    name, features = processor()
    checks = list(_checks())
    is_sound = all(passed for _, passed, _ in checks)
    if as_json:
        emit(
            {
                "ok": is_sound,
                "versions": _versions(),
                "processor": {"name": name, "features": features},
                "platform": platform.platform(),
                "kernel_cache": cache_folder(),
                "compiled_for": compiled_for(),
                "sandbox": level(),
                "checks": [{"name": name, "ok": passed, "seen": seen} for name, passed, seen in checks],
            }
        )
    else:
        table = Table(box=None, show_header=False)
        for library, text in _versions().items():
            table.add_row(library, text)
        table.add_row("processor", f"{name} ({', '.join(features) or 'no vector extensions listed'})")
        table.add_row("platform", platform.platform())
        table.add_row("kernel cache", cache_folder())
        table.add_row("compiled for", ", ".join(compiled_for()) or "nothing")
        table.add_row("sandbox", level())
        out.print(table)
        for check, passed, seen in checks:
            out.print(Text("ok  ", "green") if passed else Text("FAIL", "red"), f"{check}: {seen}")
        say(
            "Everything is in order."
            if is_sound
            else "Something is wrong: install the package again, or report this output."
        )
    if not is_sound:
        raise typer.Exit(Exit.ERROR)


def _compile_for(cpu: str) -> None:
    """Have kernels compiled for a processor or a baseline, not for this machine; before Numba is loaded."""
    if "numba" in sys.modules:
        raise InputError("--cpu must be given to a process of its own, before kernels are loaded")
    os.environ.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="")
    from ncii_match.kernels import cache

    if cpu not in cache.usable_baselines():
        raise InputError(f"--cpu is {cpu!r}; this machine can compile for {', '.join(cache.usable_baselines())}")


def warmup_command(
    cpu: Annotated[
        str | None,
        typer.Option(help="Compile for a baseline, such as x86-64-v3, that every machine of a fleet has."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile every kernel now, so that the first request does not wait for it.

    Run it when building a container image. Machine code is for one model of processor; with --cpu it serves every
    model that has the features of the baseline. Example: ncii-match warmup --cpu x86-64-v3
    """
    if cpu is not None:
        _compile_for(cpu)
    from ncii_match.kernels.cache import KernelCache

    KernelCache.accepts_baselines = False
    from ncii_match.kernels.jit import cache_folder, compile_all, compiled_for

    if not as_json:
        say("Compiling, or loading what was compiled before.")
    start = time.perf_counter()
    names = compile_all()
    took = time.perf_counter() - start
    if as_json:
        emit(
            {
                "kernels": names,
                "seconds": round(took, 3),
                "kernel_cache": cache_folder(),
                "compiled_for": compiled_for(),
            }
        )
    else:
        target = ", ".join(compiled_for()) or "nothing"
        say(f"{len(names)} kernels are ready for {target} ({took:.1f} s). Kept in: {cache_folder()}.")
