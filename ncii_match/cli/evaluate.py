"""``ncii-match evaluate``: how thresholds are chosen."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from ncii_match.cli.evaluate_bank import bank_command
from ncii_match.cli.evaluate_compare import compare_command
from ncii_match.cli.evaluate_copies import copies_command
from ncii_match.cli.evaluate_pictures import pictures_command
from ncii_match.cli.fixtures import fixtures
from ncii_match.cli.terminal import AsJson, emit, need_evaluate, out, progress, say
from ncii_match.files import atomic


class _PicturesUnlessNamed(TyperGroup):
    """``evaluate FOLDER`` means ``evaluate pictures FOLDER``: only the first word can be a command.

    A folder with the name of a command is ./compare.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that is meant."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["pictures", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PicturesUnlessNamed, no_args_is_help=True,
    help="Choose thresholds with evidence: recall of altered copies, and false positives among different pictures. "
    "'ncii-match evaluate FOLDER' is short for 'ncii-match evaluate pictures FOLDER'; "
    "a folder that is called like a command, such as bank, is ./bank.",
)  # fmt: skip
app.command("pictures")(pictures_command)
app.command("copies")(copies_command)
app.command("bank")(bank_command)
app.command("compare")(compare_command)


@app.command("transforms")
def transforms_command(
    picture: Annotated[
        Path | None, typer.Argument(metavar="PICTURE", help="The picture to alter; by default a photograph of a cat.")
    ] = None,
    preset_name: Annotated[str, typer.Option("--preset", help="Which steps: default, all or perception.")] = "default",
    page: Annotated[Path | None, typer.Option("--out", help="Write a page that shows what they do.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is left to chance: places, noise, words.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List the alterations by which thresholds are evaluated, and show them.

    Each step is a transformation at one of its strengths. The same picture, step and seed give the same bytes.

    Example: ncii-match evaluate transforms --preset default --out sheet.html holiday.jpg
    """
    from ncii_match.errors import InputError

    need_evaluate()
    from ncii_match.evaluate.transforms import TRANSFORMS, preset

    steps = preset(preset_name)
    if picture is not None and page is None:
        raise InputError("a picture is altered for a page only; say where to write it with --out sheet.html")
    if page is not None:
        page = page / "sheet.html" if page.is_dir() else page
        _write_contact_sheet(page, picture or fixtures() / "photos" / "chelsea.png", preset_name, seed, len(steps))
    if as_json:
        emit(
            {
                "preset": preset_name,
                "seed": seed,
                "steps": [
                    {"label": step.label, "transform": step.transform_name, "strength": step.strength} for step in steps
                ],
                "transforms": [
                    {
                        "name": transform.name,
                        "kind": transform.kind,
                        "unit": transform.unit,
                        "strengths": list(transform.strengths),
                        "about": transform.about,
                    }
                    for transform in TRANSFORMS.values()
                ],
                "page": None if page is None else str(page),
            }
        )
        return
    table = Table("step", "transformation", "strength", "unit", box=None)
    for step in steps:
        unit = step.transform.unit
        table.add_row(step.label, step.transform_name, f"{step.strength:g}" if unit else "", unit)
    out.print(table)
    say(f"{len(steps)} steps." if page is None else f"{len(steps)} steps; what they make of it is in {page}.")


def _write_contact_sheet(page: Path, picture: Path, preset_name: str, seed: int, steps: int) -> None:
    from ncii_match.evaluate.contact_sheet import contact_sheet, open_picture

    pixels = open_picture(picture)
    with progress("altering", steps) as bar:
        text = contact_sheet(
            pixels, preset_name, seed=seed, title=picture.name, advance=lambda: bar.advance(bar.task_ids[0])
        )
    page.parent.mkdir(parents=True, exist_ok=True)
    with atomic.output_file(page) as file:
        file.write(text.encode("utf-8"))
