"""The commands, their arguments and options. Each hands over to a module of its own."""

import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer

from duly._app import BODY_BYTES_MAX, CONNECTIONS_MAX, QUERIES_MAX, REQUEST_TIMEOUT, REQUESTS_MAX
from duly._model.job import JobState
from duly.cli._admin_key import add_admin_key, list_admin_keys, revoke_admin_key
from duly.cli._check import check
from duly.cli._codegen import check_typescript, print_openapi, write_typescript
from duly.cli._console import line_by_line
from duly.cli._dev import dev
from duly.cli._functions import list_functions
from duly.cli._jobs import list_jobs, watch_jobs
from duly.cli._load import load_app
from duly.cli._logs import LogFormat
from duly.cli._migrate import migrate
from duly.cli._problem import USAGE, CommandError, perform, problems_shown
from duly.cli._run import run
from duly.cli._server import HOST, PORT, must_serve, serve
from duly.cli._show import cancel, show
from duly.cli._transfer import export_database, import_database
from duly.cli._version import duly_version
from duly.cli._worker import work

__all__ = ["main"]

cli = typer.Typer(
    name="duly",
    help="Runs your functions later, and keeps its word.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AppReference = Annotated[
    str,
    typer.Argument(
        metavar="APP",
        help="module:attribute, such as shop:app (the attribute is 'app' if left out), or a file, such as hello.py.",
        show_default=False,
    ),
]
Database = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="Use this database rather than the app's.", show_default=False),
]


JobId = Annotated[str, typer.Argument(metavar="ID", help="Its id, or the end of it.", show_default=False)]


STATES: dict[str, JobState] = {state.lower(): state for state in get_args(JobState)}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"duly {duly_version()}")
        raise typer.Exit


@cli.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Runs your functions later, and keeps its word."""


MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, help="Show metrics for Prometheus on this port of 127.0.0.1.", show_default=False),
]
LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="What the log on stderr consists of: text, or JSON objects.")
]
Host = Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="Let pages of this origin call, such as https://shop.example; * is any. May be repeated.",
        show_default=False,
    ),
]


@cli.command("dev")
def _dev(
    app: AppReference,
    host: Host = HOST,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help=f"[default: {PORT}, or one that is free]", show_default=False),
    ] = None,
    database: Database = None,
) -> None:
    """Serve, run due functions, show what happens, reload on a change."""
    with problems_shown(app, database):
        sys.exit(perform(dev(app, database, host, port)))


@cli.command("serve")
def _serve(
    app: AppReference,
    host: Host = HOST,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is one that is free.")] = PORT,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="What a proxy in front takes off each path.", show_default=False)
    ] = "",
    cors_origin: Origins = None,
    max_body: Annotated[int, typer.Option(metavar="BYTES", min=1, help="The longest request.")] = BODY_BYTES_MAX,
    max_connections: Annotated[int, typer.Option(min=1, help="WebSockets at once.")] = CONNECTIONS_MAX,
    max_queries: Annotated[int, typer.Option(min=1, help="Live queries of one WebSocket.")] = QUERIES_MAX,
    max_requests: Annotated[int, typer.Option(min=1, help="Calls over HTTP at once.")] = REQUESTS_MAX,
    request_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long a request may take to arrive.")
    ] = REQUEST_TIMEOUT.total_seconds(),
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Run no due functions; workers elsewhere do.")] = False,
    dev: Annotated[bool, typer.Option("--dev", help="Tell clients the errors of functions.")] = False,
    metrics_port: MetricsPort = None,
    log_format: LogFormatOption = "text",
    database: Database = None,
) -> None:
    """Serve the public functions to Convex's clients, and run due functions, until SIGTERM or Ctrl-C.

    Requests and running actions get time to finish; a second signal stops at once.
    """
    with problems_shown(app, database):
        must_serve()
        loaded = load_app(app, database)
        asgi = loaded.app.asgi(
            cors_origins=cors_origin or [],
            max_body=max_body,
            max_connections=max_connections,
            max_queries=max_queries,
            max_requests=max_requests,
            request_timeout=timedelta(seconds=request_timeout),
            dev=dev,
        )
        serving = serve(
            loaded,
            asgi,
            host,
            port,
            root_path,
            request_timeout,
            worker=not no_worker,
            metrics_port=metrics_port,
            log_format=log_format,
        )
        perform(serving)


@cli.command("worker")
def _worker(
    app: AppReference,
    metrics_port: MetricsPort = None,
    log_format: LogFormatOption = "text",
    database: Database = None,
) -> None:
    """Run due functions until SIGTERM or Ctrl-C.

    Running actions get time to finish; a second signal stops at once.
    """
    with problems_shown(app, database):
        perform(work(load_app(app, database), metrics_port, log_format))


@cli.command("migrate", no_args_is_help=True)
def _migrate(app: AppReference, database: Database = None) -> None:
    """Bring the database's schema up to date: before new code is deployed. Old workers go on meanwhile.

    Needed on PostgreSQL; on SQLite, and in `duly dev`, it happens by itself.
    """
    with problems_shown(app, database):
        perform(migrate(load_app(app, database)))


@cli.command("run", no_args_is_help=True)
def _run(
    app: AppReference,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The function, such as orders:create_order.")],
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON", help="An object with its arguments; '-' reads it from stdin.", show_default=False
        ),
    ] = None,
    database: Database = None,
) -> None:
    """Call a function and print what it returns as JSON."""
    with problems_shown(app, database):
        perform(run(load_app(app, database).app, path, arguments))


@cli.command("functions")
def _functions(app: AppReference, database: Database = None) -> None:
    """List the app's functions and their parameters."""
    with problems_shown(app, database):
        list_functions(load_app(app, database).app)


@cli.command("check")
def _check(app: AppReference, database: Database = None) -> None:
    """List pending functions that this code can't run; exit with 1 if there are any.

    For a deploy pipeline: it only looks.
    """
    with problems_shown(app, database):
        sys.exit(0 if perform(check(load_app(app, database).app)) else 1)


@cli.command("jobs")
def _jobs(
    app: AppReference,
    state: Annotated[
        str, typer.Option(metavar="STATE", help=f"Only those in this state: {', '.join(STATES.values())}.")
    ] = "",
    name: Annotated[
        str,
        typer.Option(metavar="PATH", help="Only those whose path is this, or begins so: orders:", show_default=False),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each, with all fields.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table up to date until Ctrl-C.")] = False,
    database: Database = None,
) -> None:
    """List scheduled functions, newest first."""
    with problems_shown(app, database):
        if as_json and watch:
            raise CommandError("--json and --watch don't go together; choose one", exit_code=USAGE)
        if state and state.lower() not in STATES:
            raise CommandError(f"{state!r} is no state; they are: {', '.join(STATES.values())}", exit_code=USAGE)
        kind = STATES.get(state.lower())
        loaded = load_app(app, database)
        if not watch:
            perform(list_jobs(loaded.app, kind, name, limit, as_json=as_json))
            return
        with suppress(KeyboardInterrupt):
            perform(watch_jobs(loaded.app, kind, name, limit))


@cli.command("show", no_args_is_help=True)
def _show(
    app: AppReference,
    id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="The document as JSON.")] = False,
    database: Database = None,
) -> None:
    """Show everything about a scheduled function."""
    with problems_shown(app, database):
        perform(show(load_app(app, database).app, id, as_json=as_json))


@cli.command("cancel", no_args_is_help=True)
def _cancel(
    app: AppReference,
    id: JobId,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="It is fine if it has finished, or does not exist.")
    ] = False,
    database: Database = None,
) -> None:
    """Cancel a scheduled function that has not finished."""
    with problems_shown(app, database):
        perform(cancel(load_app(app, database).app, id, missing_ok=missing_ok))


@cli.command("export", no_args_is_help=True)
def _export(
    app: AppReference,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file; '-' is stdout.")],
    database: Database = None,
) -> None:
    """Write all documents and scheduled functions to a file.

    What is written is one moment's, while workers may go on. To move to another database stop the workers first: what
    is pending would run on both sides. An action in progress becomes failed ("interrupted") on the other side. Tables
    of your own are not in the file.
    """
    with problems_shown(app, database):
        perform(export_database(load_app(app, database).app, file))


@cli.command("import", no_args_is_help=True)
def _import(
    app: AppReference,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What duly export wrote; '-' is stdin.")],
    database: Database = None,
) -> None:
    """Read an export into a database that is empty or does not exist.

    All of it or nothing: whatever interrupts it leaves the database empty. Pending functions run when it has ended, as
    soon as there is a worker.
    """
    with problems_shown(app, database):
        perform(import_database(load_app(app, database).app, file))


@cli.command("codegen", no_args_is_help=True)
def _codegen(
    app: AppReference,
    folder: Annotated[
        Path,
        typer.Option(
            "--typescript",
            metavar="DIR",
            help="The folder to write to, such as web/convex/_generated.",
            show_default=False,
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the files are not up to date.")
    ] = False,
) -> None:
    """Write api.js, api.d.ts and dataModel.d.ts: the app's public functions and documents, as TypeScript types.

    For the npm package convex. Files that have not changed are left alone.
    """
    with problems_shown(app):
        (check_typescript if check else write_typescript)(load_app(app, None).app, folder)


@cli.command("openapi", no_args_is_help=True)
def _openapi(app: AppReference) -> None:
    """Print an OpenAPI document of the app's HTTP API."""
    with problems_shown(app):
        print_openapi(load_app(app, None).app)


@cli.command("admin-key", no_args_is_help=True)
def _admin_key(
    app: AppReference,
    label: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for, shown by --list.")] = "",
    as_list: Annotated[bool, typer.Option("--list", help="List the keys there are.")] = False,
    revoke: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Revoke the key whose id begins so, or this key.", show_default=False),
    ] = None,
    database: Database = None,
) -> None:
    """Make an admin key and print it: who has it may call every function, and as anybody.

    It is shown once; only a hash of it is stored.
    """
    with problems_shown(app, database):
        if (bool(label), as_list, revoke is not None).count(True) > 1:
            raise CommandError("--label, --list and --revoke don't go together; choose one", exit_code=USAGE)
        loaded = load_app(app, database).app
        if as_list:
            perform(list_admin_keys(loaded))
        elif revoke is not None:
            perform(revoke_admin_key(loaded, revoke))
        else:
            perform(add_admin_key(loaded, label))


def main() -> None:
    """The console script."""
    line_by_line()
    cli()
