"""`preflight profiles`: which profiles there are, and what one asks for and why."""

from typing import Annotated

import typer

profiles = typer.Typer(
    help="List the built-in profiles, or show one with its reasons.",
    epilog="Example: preflight profiles show apinizer",
)


@profiles.callback(invoke_without_command=True)
def list_profiles(context: typer.Context) -> None:
    """List the built-in profiles, or show one with its reasons.

    Example: preflight profiles show apinizer
    """
    if context.invoked_subcommand is not None:
        return
    from preflight.cli.profile_tables import print_list

    print_list()


@profiles.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A built-in profile, or a path to a .toml.")
    ],
) -> None:
    """Show every rule and install domain of a profile, with the reason and its source.

    What it extends is merged in.

    Example: preflight profiles show apinizer
    """
    from preflight.cli.profile_tables import print_profile
    from preflight.config import load_profile

    print_profile(load_profile(name))
