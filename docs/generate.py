"""Write the pages that are made from the code: docs/reference.md (public names) and docs/cli.md (commands).

python docs/generate.py            writes them
python docs/generate.py --check    exits 1 when a page is not what the code says
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.models import ArgumentInfo

import ncii_match
from ncii_match.cli.main import app

HERE = Path(__file__).parent
MADE = "<!-- Made by `python docs/generate.py`; edit the code instead. -->\n"


EXIT_CODES = """\
Results go to standard output, everything else to standard error. With `--json` standard output carries one JSON object,
or one a line where there is one for each input.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the command could not do its work; the message says why |
| 2 | the command line makes no sense |
| 3 | done, but some inputs could not be read |
| 4 | `scan`, `rescan`: done, and a picture is within the threshold of an entry; it wins over 3, so read the outcomes |
| 5 | `evaluate compare --fail-if-worse`: done, and something is worse than before |
| 6 | `bank`: changed, but the publication failed: readers do not see the change until `bank publish` succeeds |
"""


def paragraph(text: str) -> str:
    """A docstring as Markdown: numpydoc headings become bold, literals keep their marks."""
    lines = inspect.cleandoc(text).replace("``", "`").splitlines()
    written: list[str] = []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(line) == {"-"}:
            continue
        written.append(f"**{line}**\n" if below and set(below) == {"-"} and len(below) >= len(line) else line)
    text = "\n".join(written)
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(_as_list(block) for block in blocks)


def _as_list(block: str) -> str:
    """Lines of the form ``name : meaning`` become a list."""
    lines = block.splitlines()
    if not any(" : " in line and not line.startswith(" ") for line in lines) or lines[0].startswith("**"):
        return block
    items = []
    for line in lines:
        name, colon, meaning = line.partition(" : ")
        items.append(f"- `{name}`: {meaning}" if colon and not line.startswith(" ") else line)
    return "\n".join(items)


def signature_of(function: Any) -> str:
    """A signature as it is written in the source, on one line."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        raise TypeError(f"{function} is not a function")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}".replace("'", "")


def reference() -> str:
    """Every public name, by the module that owns it."""
    parts = ["# Reference\n", MADE, "Every public name of `import ncii_match as nm`, with the module that owns it.\n"]
    for module, names in ncii_match._HOMES.items():  # noqa: SLF001
        parts.append(f"## {module}\n")
        for name in names:
            value = getattr(ncii_match, name)
            if inspect.isclass(value):
                parts.append(f"### `{name}`\n\n{paragraph(value.__doc__ or '')}\n")
                for method, function in inspect.getmembers(value):
                    own = method in vars(value) and not method.startswith("_")
                    raw = vars(value).get(method)
                    if (own and isinstance(raw, classmethod | staticmethod)) or (own and inspect.isfunction(raw)):
                        signature = signature_of(function)
                        parts.append(f"#### `{name}.{method}{signature}`\n\n{paragraph(function.__doc__ or '')}\n")
                    elif own and isinstance(raw, property):
                        parts.append(f"#### `{name}.{method}`\n\n{paragraph(raw.__doc__ or '')}\n")
            elif callable(value):
                signature = signature_of(value)
                parts.append(f"### `{name}{signature}`\n\n{paragraph(value.__doc__ or '')}\n")
            else:
                parts.append(f"### `{name}`\n\n`{value}`\n")
    return "\n".join(parts)


def commands() -> str:
    """Every command with its help."""
    parts = ["# Command line\n", MADE, EXIT_CODES]
    groups = [("ncii-match", app)] + [(f"ncii-match {one.name}", one.typer_instance) for one in app.registered_groups]
    for group, commands in groups:
        nameless = [one.typer_instance for one in commands.registered_groups if not isinstance(one.name, str)]
        for command in [one for each in (commands, *nameless) for one in each.registered_commands]:
            callback = command.callback
            rows = "\n".join(_rows(callback))
            table = f"| argument or option | meaning | default |\n|---|---|---|\n{rows}"
            parts.append(f"## {group} {command.name}\n\n{inspect.cleandoc(callback.__doc__ or '')}\n\n{table}\n")
    return "\n".join(parts)


def _rows(callback: Any) -> Iterator[str]:
    """Each argument or option of a command as a line of a table."""
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        if hints[name] is typer.Context:
            continue
        kind, about = hints[name].__origin__, hints[name].__metadata__[0]
        argument = isinstance(about, ArgumentInfo)
        names = [one for one in (about.default, *(about.param_decls or ())) if isinstance(one, str) and one[:2] == "--"]
        written = about.metavar if argument else ", ".join(names) or f"--{name.replace('_', '-')}"
        if inspect.isclass(kind) and issubclass(kind, StrEnum):
            written += f" {'|'.join(kind)}"
        written = written.replace("|", "\\|")
        default = parameter.default
        shown = "required" if default is inspect.Parameter.empty else "" if default in (None, False) else f"`{default}`"
        yield f"| `{written}` | {about.help or ''} | {'on' if default is True else shown} |"


def main() -> int:
    """Write or check the pages."""
    wrong = []
    for name, text in {"reference.md": reference(), "cli.md": commands()}.items():
        path = HERE / name
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(name)
    if wrong:
        print(f"{', '.join(wrong)}: not what the code says; run python docs/generate.py")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
