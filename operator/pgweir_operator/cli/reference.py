"""The command line's reference, written from the program: `python -m pgweir_operator.cli.reference > docs/cli.md`.

Pure; a test compares the page with it. The text is what `--help` says, laid out for a page.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

import typer

from pgweir_operator.cli.exit_codes import MEANINGS
from pgweir_operator.cli.main import app
from pgweir_operator.cli.plugin.main import app as plugin

_HEADER: Final = """\
# The command line

Written by `python -m pgweir_operator.cli.reference > docs/cli.md`; do not edit it by hand.

`pgweir` and `kubectl pgweir` come with the operator package (`pip install '.[operator]'`); `pgweir-console`, which is also called
`bctl`, comes with the data plane and is in its image ([console](console.md)). `--help` says the same as this page.
`pgweir --install-completion` teaches your shell to complete words.
"""


def cli_reference() -> str:
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items())
    parts = [_HEADER, f"## Exit codes\n\n| code | meaning |\n| --- | --- |\n{codes}\n"]
    for name, program in programs().items():
        parts.append(f"## {name}\n\n{_prose(_help(program))}\n")
        parts += [
            _command(f"{name} {word}", command) for word, command in program.commands.items() if not command.hidden
        ]
    return "\n".join(parts)


def programs() -> dict[str, Any]:
    """The commands by the words that a person types (groups of typer's own click)."""
    return {"pgweir": typer.main.get_command(app), "kubectl pgweir": typer.main.get_command(plugin)}


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join([path, "[OPTIONS]", *(_argument(each) for each in arguments)])
    parts = [f"### {path}\n\n`{usage}`\n\n{_prose(_help(command))}"]
    rows = [f"| `{_argument(each)}` | {each.help or ''} |" for each in arguments]
    rows += [_option(each) for each in command.params if each.param_type_name == "option" and not each.hidden]
    if rows:
        parts.append("| argument or option | meaning |\n| --- | --- |\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = name.strip("[]")
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = "/".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
    notes = []
    if option.required:
        notes.append("needed")
    if option.show_default and not option.is_flag and option.default not in (None, ""):
        notes.append(f"default {getattr(option.default, 'value', option.default)}")
    if option.envvar:
        notes.append(f"or the variable {option.envvar}")
    note = f" ({'; '.join(notes)})" if notes else ""
    return f"| `{names}{value}` | {' '.join((option.help or '').split())}{note} |"


def _prose(text: str) -> str:
    """Paragraphs; what follows a `\\b` is kept line by line, as a block."""
    return "\n\n".join(_paragraphs(text))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        lines = [line.rstrip() for line in paragraph.splitlines()]
        if lines[0] == "\b":
            yield f"{lines[1]}\n\n```console\n" + "\n".join(f"$ {line.strip()}" for line in lines[2:]) + "\n```"
        else:
            yield paragraph


if __name__ == "__main__":
    print(cli_reference(), end="")
