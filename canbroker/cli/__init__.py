"""The command line. One module a command, imported when it is called for."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final

import click

from canbroker.cli import output
from canbroker.errors import CanError
from canbroker.model.wording import printable
from canbroker.system.descriptors import open_standard
from canbroker.system.service import set_up_one_line

#: name -> where the command is, and its line in ``canbroker --help``; in the order of that page
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("canbroker.cli.serve:serve", "Run a broker in the foreground."),
    "status": ("canbroker.cli.status:status", "Show channels, clients and processes of a broker."),
    "metrics": ("canbroker.cli.metrics:metrics", "Print a broker's numbers for Prometheus."),
    "stop": ("canbroker.cli.stop:stop", "Stop the broker and everything it has started."),
    "config": ("canbroker.cli.config:config", "Show what programs are configured with."),
    "scan": ("canbroker.cli.scan:scan", "Show adapters that could be opened."),
    "top": ("canbroker.cli.top:top", "Show a channel as a table, one row for each identifier."),
    "dump": ("canbroker.cli.dump:dump", "Print the frames of channels, like candump."),
    "record": (
        "canbroker.cli.record:record",
        "Record channels to files, or write the recent frames of one.",
    ),
    "send": ("canbroker.cli.send:send", "Send frames, like cansend."),
    "replay": ("canbroker.cli.replay:replay", "Send the frames of a log in time, like canplayer."),
    "convert": ("canbroker.cli.convert:convert", "Convert a log file into another format."),
    "gen": ("canbroker.cli.gen:gen", "Send made-up frames, like cangen."),
    "web": ("canbroker.cli.web:web", "Show a broker's channels in a browser."),
    "fleet": (
        "canbroker.cli.fleet:fleet",
        "Show the benches of a site, by what they publish to NATS.",
    ),
    "keys": ("canbroker.cli.keys:keys", "Manage access to brokers over the network."),
    "simulate": ("canbroker.cli.simulate:simulate", "Simulate an adapter without hardware."),
    "demo": ("canbroker.cli.demo:demo", "Show one adapter shared by many processes."),
}

INTERRUPTED: Final = 130  # what a shell makes of SIGINT


class Failure(click.ClickException):
    """What was asked for could not be done. Ends with exit code 1 and one line of text."""

    def show(self, file: Any = None) -> None:
        click.echo(printable(f"canbroker: {self.message}"), file=file, err=file is None)


class CommandTable(click.Group):
    """A group that imports a command when it is used, and not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """:raises Failure: for every error that canbroker raises on purpose."""
        try:
            return super().invoke(ctx)
        except CanError as error:
            raise Failure(f"{ctx.invoked_subcommand}: {error}") from error


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="canbroker", message="canbroker %(version)s")
def cli() -> None:
    """Share CAN adapters between any number of programs.

    Commands that use a channel take the name of a channel of the broker's configuration, or
    -i INTERFACE and what that interface calls a channel. They start a broker if none runs
    (CANBROKER_AUTOSTART=0 forbids it).

    \b
    Try, in two terminals:
      canbroker dump -i virtual demo
      canbroker send -i virtual demo 123#DEADBEEF

    Exit codes: 0 done, 1 it failed, 2 the command line is wrong, 130 interrupted.
    """


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    open_standard()
    output.escape_unencodable()
    set_up_one_line("canbroker: %(message)s", logging.WARNING)
    try:
        result = cli.main(prog_name="canbroker", standalone_mode=False)
        output.flush()
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        problem = output.problem(error)
        if problem is not None:
            Failure(problem).show()
        return 1
    return result if isinstance(result, int) else 0
