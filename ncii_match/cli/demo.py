"""``ncii-match demo``: the whole road on real photographs, in a table and a page."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ncii_match.cli.fixtures import fixtures
from ncii_match.cli.terminal import AsJson, emit, out, progress, say

COLOURS = {"found": "green", "missed": "yellow", "clear": "cyan", "wrong": "red"}


def demo_command(
    page: Annotated[Path, typer.Option("--out", help="Where to write the page.")] = Path("ncii-match-demo.html"),
    as_json: AsJson = False,
) -> None:
    """Show what is recognised and what is not: a bank of four photographs, altered copies, innocent pictures.

    Example: ncii-match demo --out demo.html
    """
    from ncii_match.evaluate.demo import demonstrate, render, total_uploads

    photos = fixtures() / "photos"
    if page.is_dir():
        page /= "ncii-match-demo.html"
    if not as_json:
        say("Four photographs go into a bank; copies of them and other pictures are checked against it.")
        say("A first run compiles the kernels before that.")
    with progress("checking", total_uploads(photos)) as bar:
        demonstration = demonstrate(photos, lambda: bar.advance(bar.task_ids[0]))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(demonstration), encoding="utf-8")
    after_match = demonstration.still_matching
    counts = {verdict: demonstration.count(verdict) for verdict in (*COLOURS, "low quality")}
    if as_json:
        rows = [
            {
                "file": upload.photo,
                "done": upload.alteration,
                "in_bank": upload.is_banked,
                "verdict": upload.verdict,
                **upload.decision.to_dict(),
            }
            for upload in demonstration.uploads
        ]
        withdrawn = {"file": demonstration.withdrawn, "checked": len(demonstration.after), "matching": after_match}
        emit({**counts, "after_withdrawal": withdrawn, "page": str(page), "uploads": rows})
        return
    table = Table("file", "what was done to it", "answer", "distance", "view", box=None)
    for upload in demonstration.uploads:
        distance = "" if upload.decision.distance is None else str(upload.decision.distance)
        view = "" if upload.decision.view is None else upload.decision.view.label
        colour = COLOURS.get(upload.verdict, "magenta")
        table.add_row(upload.photo, upload.alteration, Text(upload.verdict, colour), distance, view)
    out.print(table)
    out.print(
        f"{counts['found']} copies found, {counts['missed']} missed; "
        f"{counts['clear']} other pictures left alone, {counts['wrong']} flagged wrongly, "
        f"{counts['low quality']} with too little detail to judge."
    )
    out.print(
        f"Then the case of {demonstration.withdrawn} was withdrawn: of the same {len(demonstration.after)} uploads "
        f"{after_match} still match."
    )
    out.print(f"The same with pictures: file://{os.path.abspath(page)}")
