"""Commands around the daemon: init, doctor, service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import HomeOption, Json, print_json, print_table

service = typer.Typer(no_args_is_help=True, help="Have systemd or launchd run the daemon.")
MODELS = "The engine: pocket, torch:PATH, mlx:PATH, ollama:NAME, openai:URL#NAME or anthropic:NAME."
System = Annotated[bool, typer.Option("--system", help="The machine's service, not the user's.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(doctor)
    app.add_typer(service, name="service")


def init(
    home: HomeOption = None,
    model: Annotated[
        str, typer.Option(help="The engine: pocket, torch:PATH, mlx:PATH, ollama:NAME, openai:URL#NAME or anthropic:NAME.")
    ] = "pocket",
    tasks: Annotated[str, typer.Option(help="The task stream: pocket, koans, swe-bench-cl or repo:PATH.")] = "pocket",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing configuration file.")] = False,
) -> None:
    """Make a state directory with a commented configuration file."""
    from daemon.home import Home
    from daemon.template import write_config

    place = Home.at(home)
    place.make()
    write_config(place.config, model, tasks, force)
    typer.echo(f"wrote {place.config}; next: sleepyctl doctor, then sleepyctl run")


def doctor(home: HomeOption = None, as_json: Json = False) -> None:
    """Check everything the daemon needs; says for each failure what to do. Exit code 1 if something failed."""
    from daemon.doctor import examine
    from daemon.home import Home

    checks = examine(Home.at(home))
    if as_json:
        print_json([check.model_dump() for check in checks])
    else:
        print_table(("check", "", "found", "what to do"), [(c.name, c.verdict, c.found, c.advice) for c in checks], "")
    raise typer.Exit(1 if any(check.verdict == "failed" for check in checks) else 0)


@service.command("install")
def service_install(
    home: HomeOption = None,
    system: System = False,
    executable: Annotated[Path | None, typer.Option(help="The sleepyd to run; this environment's by default.")] = None,
) -> None:
    """Write the unit or property list, and have it started now and at every boot."""
    from daemon.home import Home
    from daemon.service import Scope, plan_service, service_manager

    scope = Scope.SYSTEM if system else Scope.USER
    plan = plan_service(Home.at(home).root, scope, executable)
    done = service_manager(scope).install(plan)
    typer.echo(f"{done.status.manager} runs it: {done.status.path}")
    for line in done.advice:
        typer.echo(line)


@service.command("uninstall")
def service_uninstall(system: System = False) -> None:
    """Stop it and remove the file; the state directory stays."""
    from daemon.service import Scope, service_manager

    gone = service_manager(Scope.SYSTEM if system else Scope.USER).uninstall()
    typer.echo("removed; the state directory stays" if gone else "there was no service of ours")


@service.command("status")
def service_status(system: System = False, as_json: Json = False) -> None:
    """What the service manager says. Exit code 3 if it does not run."""
    from daemon.service import Scope, service_manager

    found = service_manager(Scope.SYSTEM if system else Scope.USER).status()
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        typer.echo(f"{found.manager} ({found.scope}): {found.state}" + (f", PID {found.pid}" if found.pid else ""))
    raise typer.Exit(0 if found.active else 3)
