"""``ncii-match hash``: hashes of pictures on standard output."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ncii_match.cli.terminal import (
    AlgorithmName,
    AsJson,
    Exit,
    JpegFiles,
    JpegName,
    ViewsName,
    Workers,
    emit,
    files_in,
    out,
    paired,
    progress,
    say,
)


def hash_command(
    paths: Annotated[list[Path], typer.Argument(metavar="PICTURE|FOLDER...", help="Files, or folders of files.")],
    algorithm: Annotated[AlgorithmName, typer.Option(help="Which hash.")] = AlgorithmName.PDQ,
    views: Annotated[
        ViewsName, typer.Option(help="As it is, in 8 orientations, those without a border too, or in both profiles.")
    ] = ViewsName.UPRIGHT,
    jpeg: JpegFiles = JpegName.COLOUR,
    as_json: AsJson = False,
    workers: Workers = None,
) -> None:
    """Hash pictures.

    One line for each view of each picture: hash, quality, view, file. A picture without a hash shows why instead.

    Example: ncii-match hash holiday.jpg
    """
    from ncii_match.ingest import hash_batches
    from ncii_match.outcomes import Status
    from ncii_match.values import UNKNOWN_QUALITY, Hashes, View

    chosen = algorithm.algorithm
    widest = max(26, *(len(view.label) for view in (*views.views, View.UPRIGHT)))

    def hashes_of(files: Iterator[Path]) -> Iterator[Hashes]:
        for batch in hash_batches(files, chosen, views=views.views, workers=workers, jpeg=jpeg.route):
            for first in range(0, len(batch), len(views.views)):
                yield batch[first : first + len(views.views)]

    files = files_in(paths)
    unreadable = 0
    with progress("hashing", len(files)) as bar:
        for path, hashes in paired(files, hashes_of):
            unreadable += Status.OK not in hashes.status
            for row, text in enumerate(hashes.to_hex()):
                quality = int(hashes.quality[row])
                view, status = View(int(hashes.view[row])), Status(int(hashes.status[row]))
                if as_json:
                    emit(
                        {
                            "file": str(path),
                            "hash": text if status is Status.OK else None,
                            "algorithm": str(chosen),
                            "quality": None if quality == UNKNOWN_QUALITY else quality,
                            "view": view.name,
                            "status": status.name,
                            "reason": status.reason,
                        }
                    )
                elif status is Status.OK:
                    shown = "" if quality == UNKNOWN_QUALITY else f"{quality:3}  "
                    label = "" if len(hashes) == 1 else f"{view.label:{widest}}  "
                    out.print(f"{text}  {shown}{label}{path}")
                elif row == 0:
                    out.print(f"{status.name}  {path}: {status.reason}")
            bar.advance(bar.task_ids[0])
    if unreadable:
        say(f"{unreadable} of {len(files)} pictures could not be hashed.")
        raise typer.Exit(Exit.UNREADABLE)
