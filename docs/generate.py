"""Write the pages that are made from the code: docs/reference.md (public names) and docs/cli.md (commands).

python docs/generate.py            writes them
python docs/generate.py --check    exits 1 when a page is not what the code says
"""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import griffe
import typer
from typer.models import ArgumentInfo

import ncii_match
from ncii_match.cli.main import app

HERE = Path(__file__).parent

INTRODUCTION = """\
Names of `import ncii_match as nm`, by the module that owns them. Of a method, its first paragraph is here;
`help(nm.Bank.add)` has the parameters, the errors and examples.
"""

COMMON = 5
"""Commands from which on an option that they share is explained once."""

FIELD = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.*)$")
"""``name : meaning`` in a docstring."""

NOTICE = "<!-- Made by `python docs/generate.py`; edit the code instead. -->\n"


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


def reference() -> str:
    """Every public name, by the module that owns it."""
    package = griffe.load("ncii_match", search_paths=[HERE.parent], docstring_parser="numpy", resolve_aliases=True)
    homes: dict[str, list[griffe.Object]] = {}
    for name in sorted(set(ncii_match.__all__) - {"__version__"}):
        alias = package.members[name]
        value = alias.final_target if isinstance(alias, griffe.Alias) else alias
        homes.setdefault(value.path.rpartition(".")[0], []).append(value)
    top = {value.path for values in homes.values() for value in values}
    lower: dict[str, list[griffe.Object]] = {}
    for below in _modules(package):
        members = [below.members[name] for name in sorted(map(str, below.exports or ()))]
        values = [member.final_target if isinstance(member, griffe.Alias) else member for member in members]
        lower[below.path] = [value for value in values if value.path not in top]
    parts = ["# Reference\n", NOTICE, INTRODUCTION]
    for home, values in sorted(homes.items()):
        parts += [f"## {home}\n", *map(entry, values)]
    parts.append("# Names of single packages\n\nNot at the top: import them from the package that is named.\n")
    for home, values in sorted(lower.items()):
        if values:
            parts += [f"## {home}\n", "\n".join(map(summary, values)) + "\n"]
    return "\n".join(parts)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """The packages and modules below one that say in ``__all__`` what is for others."""
    for member in module.modules.values():
        if not member.is_alias:
            if member.exports:
                yield member
            yield from _modules(member)


def entry(value: griffe.Object) -> str:
    """A name with its signature, its docstring, and, of a class, the methods for others."""
    if isinstance(value, griffe.Function):
        return f"### `{signature(value)}`\n\n{docstring(value)}\n"
    text = f"### `{value.name}`\n\n{docstring(value)}\n"
    if isinstance(value, griffe.Class):
        methods = [
            summary(method, ".")
            for method in value.members.values()
            if not method.name.startswith("_") and not method.is_alias and method.docstring
            and (isinstance(method, griffe.Function) or "property" in method.labels)
        ]  # fmt: skip
        text += "\nMethods and properties:\n\n" + "\n".join(methods) + "\n" if methods else ""
    return text


def signature(function: griffe.Function) -> str:
    """The call without annotations, on one line."""
    parameters, seen_star = [], False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not seen_star:
            parameters.append("*")
            seen_star = True
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        seen_star = seen_star or star == "*"
        default = f"={parameter.default}" if parameter.default is not None and not star else ""
        parameters.append(f"{star}{parameter.name}{default}")
    returns = f" -> {function.returns}".replace("'", "").replace('"', "") if function.returns else ""
    return f"{function.name}({', '.join(parameters)}){returns}"


def summary(value: griffe.Object, before: str = "") -> str:
    """A name with its signature and the first paragraph of its docstring."""
    shown = signature(value) if isinstance(value, griffe.Function) else value.name
    return f"- `{before}{shown}`: {first_paragraph(value)}"


def first_paragraph(value: griffe.Object) -> str:
    """The beginning of a docstring, on one line."""
    return _inline(value.docstring.value.split("\n\n")[0]) if value.docstring else ""


def docstring(value: griffe.Object) -> str:
    """A docstring as Markdown: text, then what it takes, has, returns and raises."""
    sections = value.docstring.parsed if value.docstring else []
    return "\n\n".join(filter(None, map(_section, sections)))


def _section(section: griffe.DocstringSection) -> str:
    if isinstance(section.value, str):
        return _text(section.value)
    if section.kind is griffe.DocstringSectionKind.admonition:
        return f"**{section.title}.** {_text(section.value.contents)}"
    if section.kind is griffe.DocstringSectionKind.examples:
        return ""
    fields: list[tuple[list[str], str]] = []
    for item in section.value:
        name = getattr(item, "name", None)
        about = str(item.annotation or "")
        description = _inline(item.description or "")
        if name is None and description:
            name, about = about, ""
        meaning = _join(_inline(about), description)
        if fields and name and fields[-1][1] == meaning:  # `case, source : …` is one field of two names
            fields[-1][0].append(name)
        else:
            fields.append(([name] if name else [], meaning))
    items = [_item(", ".join(names), meaning) for names, meaning in fields]
    kind = section.kind
    title = (
        "" if kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes) else kind.value
    )
    return (f"**{title.replace('_', ' ').capitalize()}**\n\n" if title else "") + "\n".join(items)


def _item(name: str, about: str) -> str:
    return f"- `{name}`: {about}" if name else f"- {about}"


def _inline(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _join(about: str, description: str) -> str:
    """What stands behind the colon of a field, and the lines below it: a type and a meaning, or one sentence."""
    if not about or not description:
        return about or description
    goes_on = not description[0].isupper() or about.endswith((".", ",", ";", ":"))
    return f"{about} {description}" if goes_on else f"{about}. {description}"


def _text(text: str) -> str:
    """Paragraphs; fields that stand in a text without a heading become a list."""
    blocks = [block for block in text.replace("``", "`").split("\n\n") if not block.lstrip().startswith(">>>")]
    return "\n\n".join(_fields(block) for block in blocks if block.strip())


def _fields(block: str) -> str:
    items: list[str] = []
    for line in block.splitlines():
        field = FIELD.match(line)
        if field:
            items.append(_item(field[1], field[2]))
        else:
            items.append(f"  {line.strip()}" if items and items[0].startswith("- ") else line)
    return "\n".join(items)


def commands() -> str:
    """Every command with its help."""
    subgroups = [(f"ncii-match {group.name}", group.typer_instance) for group in app.registered_groups]
    tables = {}
    for title, group in [("ncii-match", app), *subgroups]:
        nameless = [part.typer_instance for part in group.registered_groups if not isinstance(part.name, str)]
        for command in [command for part in (group, *nameless) for command in part.registered_commands]:
            about = inspect.cleandoc(command.callback.__doc__ or "")
            tables[f"{title} {command.name}"] = about, list(_rows(command.callback))
    uses = Counter(row for _, rows in tables.values() for row in rows)
    common = sorted(row for row, count in uses.items() if count >= COMMON)
    parts = ["# Command line\n", NOTICE, EXIT_CODES, f"Options of many commands:\n\n{_table(common)}\n"]
    for command, (about, rows) in tables.items():
        own = [row for row in rows if row not in common]
        names = ", ".join(row.split(" | ")[0].removeprefix("| ") for row in rows if row in common)
        shared = f"And: {names}.\n" if names else ""
        parts.append("\n".join(filter(None, [f"## {command}\n\n{about}\n", own and f"{_table(own)}\n", shared])))
    return "\n".join(parts)


def _table(rows: list[str]) -> str:
    return "\n".join(["| argument or option | meaning |\n|---|---|", *rows])


def _rows(callback: Any) -> Iterator[str]:
    """Each argument or option of a command as a line of a table."""
    hints = get_type_hints(callback, include_extras=True)
    for parameter in inspect.signature(callback).parameters.values():
        if hints[parameter.name] is typer.Context:
            continue
        kind, about = hints[parameter.name].__origin__, hints[parameter.name].__metadata__[0]
        declared = (about.default, *(about.param_decls or ()))
        options = [option for option in declared if isinstance(option, str) and option.startswith("--")]
        name = about.metavar if isinstance(about, ArgumentInfo) else ", ".join(options)
        name = name or f"--{parameter.name.replace('_', '-')}"
        if inspect.isclass(kind) and issubclass(kind, StrEnum):
            name += f" {'|'.join(kind)}"
        name = name.replace("|", "\\|")
        notes = [about.help or ""]
        if parameter.default is inspect.Parameter.empty:
            notes.append("Required.")
        elif parameter.default not in (None, False):
            notes.append("On by default." if parameter.default is True else f"Default: `{parameter.default}`.")
        yield f"| `{name}` | {' '.join(notes)} |"


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
