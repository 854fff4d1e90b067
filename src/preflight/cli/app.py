"""The commands, put together. What is heavy is imported by the command that needs it."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

import preflight
from preflight.cli.check_command import check
from preflight.cli.demo_command import demo
from preflight.cli.diagnose_command import diagnose
from preflight.cli.key_command import key
from preflight.cli.options import flush_stdout, silence_stdout
from preflight.cli.plan_command import plan
from preflight.cli.profiles_command import profiles
from preflight.cli.schema_command import schema
from preflight.cli.serve_command import serve
from preflight.errors import PreflightError

app = typer.Typer(
    name="preflight",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""What all errors in options and arguments are; typer has it, and does not export it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"preflight {preflight.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Check that a Kubernetes cluster's network is ready, before anything is installed.

    Start `preflight serve` on every node, then run `preflight check --cluster cluster.toml`.
    """


def _unwrapped(command: Callable[..., None]) -> str:
    """The docstring, a line a paragraph: typer wraps for the terminal, and keeps our own breaks."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for command in (serve, check, plan, diagnose, key, demo, schema):
    app.command(help=_unwrapped(command))(command)
app.add_typer(profiles, name="profiles")


UNFORESEEN = 70
"""A fault of this program (EX_SOFTWARE of sysexits.h): never the code of a verdict."""


def main() -> None:
    """Run a command. What stops it is one clear sentence on stderr, never a traceback."""
    code = 0
    if sys.stderr is None:  # closed by whoever started us: nobody wants to hear of it
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to our end
    try:
        try:
            code = app(standalone_mode=False)
        finally:
            flush_stdout()  # here, where it can still be told that it did not work
    except _USAGE_ERROR as error:
        if said := _usage(error):
            print(f"preflight: {said}", file=sys.stderr)
        sys.exit(PreflightError.exit_code)
    except PreflightError as error:
        print(f"preflight: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our stdout (head, less) has gone: nothing is left to say to them.
        silence_stdout()
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"preflight: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(PreflightError.exit_code)
    except Exception:  # noqa: BLE001 - the last place where it can be told
        traceback.print_exc()
        print("preflight: this is a fault of preflight, and no verdict", file=sys.stderr)
        sys.exit(UNFORESEEN)
    sys.exit(code)


def _usage(error: Exception) -> str:
    """A wrong use in one sentence of ours; empty where the help was printed instead.

    typer draws a box, and what is in it begins in pydantic's words.
    """
    said = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    said = said.replace("Value error, ", "").replace("Input should be", "it should be")
    context = getattr(error, "ctx", None)
    if said and context is not None:
        said += f" (see {context.command_path} --help)"
    return said[:1].lower() + said[1:]
