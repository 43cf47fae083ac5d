"""Write docs/cli.md from the command line's own help; a test compares the two."""

from __future__ import annotations

from pathlib import Path

from typer.main import get_command


def cli_markdown() -> str:
    """The help of every verb."""
    from flatcoat.app.cli import app

    group = get_command(app)
    parts = ["# The command line\n\nMade from the program's help by `scripts/cli_docs.py`.\n"]
    for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        parts.append(f"## flatcoat {name}\n\n{command.help}\n")
        rows = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            said = (getattr(parameter, "help", "") or "").replace("|", "\\|")
            names = " ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
            default = (
                "" if parameter.default in (None, False) or parameter.required else f" (default: {parameter.default})"
            )
            rows.append(f"| `{names}` | {said}{default} |")
        parts.append("| | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).resolve().parents[1].joinpath("docs", "cli.md").write_text(cli_markdown(), encoding="utf-8")
