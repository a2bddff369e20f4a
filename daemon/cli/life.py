"""Commands about the daemon's life: run, status, sleep-now, wake-now, pause, resume, stop."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, note, print_json

DRY_RUN_SECONDS = 900.0
POLL_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(status)
    app.command("sleep-now")(sleep_now)
    app.command("wake-now")(wake_now)
    app.command()(pause)
    app.command()(resume)
    app.command()(stop)


def run(
    home: HomeOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log to the files only, not to the terminal.")] = False,
) -> None:
    """Live on a state directory: work, sleep, work, until a signal or `sleepyctl stop`."""
    from daemon.home import Home
    from daemon.run import run as live

    live(Home.at(home), quiet)


def status(
    home: HomeOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """What the daemon is doing, what it did, and why. Exit code 3 if none runs."""
    from daemon.client import ask
    from daemon.errors import NoDaemonError
    from daemon.home import Home

    place = Home.at(home)
    while True:
        try:
            answer = ask(place.socket, "GET", "/status")
        except NoDaemonError:
            _without_daemon(place, as_json)
            raise typer.Exit(3) from None
        if watch and not as_json and sys.stdout.isatty():
            typer.echo("\x1b[H\x1b[2J", nl=False)
        print_json(answer) if as_json else typer.echo(_told(answer))
        if not watch:
            return
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            return


def _without_daemon(home: Any, as_json: bool) -> None:
    note(f"no daemon runs on {home.root}; `sleepyctl run` starts one. This is read from the store:")
    if not home.store.is_file():
        print_json({"state": "stopped", "home": str(home.root)}) if as_json else typer.echo("there is no store yet")
        return
    from daemon.views import metrics
    from memory.store import Store

    with Store(home.store, read_only=True) as store:
        rates, night, last = metrics(store), store.open_night_now(), store.note("state") or "stopped"
    if as_json:
        answer = {"state": "stopped", "home": str(home.root), "last_state": last, "open_night": night.id if night else None}
        print_json(answer | {"tasks_ended": rates.all.ended, "tasks_resolved": rates.all.resolved})
        return
    if last != "stopped":
        typer.echo(f"it ended without warning while it was {last}")
    typer.echo(f"tasks   {rates.all.ended} ended, {rates.all.resolved} resolved")
    typer.echo(f"nights  {rates.nights_promoted} promoted, {rates.nights_rejected} rejected")
    if night is not None:
        typer.echo(f"night {night.id} was broken off and goes on when a daemon runs")


def _told(s: dict[str, Any]) -> str:
    """The status as a person reads it."""
    doing = s["doing"]
    lines = [f"{s['state']} since {_when(s['since'])}" + (f" ({s['why']})" if s["why"] else "")]
    if doing["night"]:
        progress = doing["progress"]
        done = f", {progress['repo']} {progress['step']}/{progress['steps']}, loss {progress['loss']:.3f}" if progress else ""
        lines.append(f"night    {doing['night']}: {doing['step'] or 'opening'}{done}")
    elif doing["tasks"]:
        lines.append(f"working  {', '.join(doing['tasks'][:4])}{' ...' if len(doing['tasks']) > 4 else ''}")
    if s["holding"]:
        lines.append(f"holding  {s['holding']}")
    lines.append(
        f"tasks    {s['tasks_ended']} ended, {s['tasks_resolved']} resolved, {s['tasks_since_night']} since the last night"
    )
    verdict = s["last_verdict"]
    if verdict:
        word = "promoted" if verdict["promoted"] else "rejected"
        lines.append(f"nights   {s['nights']}; the last, {s['last_night']}, {word}: {verdict['why']}")
    else:
        lines.append("nights   none yet")
    if s["night_deferred"]:
        lines.append(f"deferred {s['night_deferred']}")
    if s["next_night"]:
        lines.append(f"next     {_when(s['next_night'])}")
    live = ", ".join(f"{repo} {adapter}" for repo, adapter in s["live"].items()) or "the bare base model"
    lines.append(f"live     {live}")
    if s["taken_back"]:
        lines.append(f"back     {s['taken_back']}")
    lines.append(f"arm      {s['arm']}, {s['memories']} memories (version {s['knowledge']})")
    lines.append(f"process  {s['pid']}, {s['rss_mb']:g} MiB, {s['free_disk_mb']} MiB of disk free, config {s['config_hash']}")
    if s["config_problem"]:
        lines.append(f"config   not taken over: {s['config_problem']}")
    return "\n".join(lines)


def _when(text: str) -> str:
    from datetime import datetime

    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def sleep_now(
    home: HomeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop before training: tell what it would learn from, what not, and why.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Come back when the night is over; exit code 1 if it was rejected.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold a night as soon as the tasks in hand are over."""
    from daemon.client import TIMEOUT_SECONDS, ask
    from daemon.errors import NoDaemonError
    from daemon.home import Home

    place = Home.at(home)
    try:
        answer = ask(place.socket, "POST", "/sleep", {"dry_run": dry_run}, DRY_RUN_SECONDS if dry_run else TIMEOUT_SECONDS)
    except NoDaemonError:
        if not dry_run or not place.store.is_file():
            raise
        note("no daemon runs; this is computed from the store, and nothing is filtered")
        answer = {"accepted": False, "plan": _plan(place)}
    plan = answer["plan"]
    if dry_run or not answer["accepted"]:
        print_json({**plan, "data": answer.get("data")}) if as_json else _tell_plan(plan, answer.get("data"))
        raise typer.Exit(0 if dry_run else 1)
    if not wait:
        print_json(answer) if as_json else typer.echo(f"it will sleep: {plan['why']}")
        return
    night = _wait_for_night(place, answer["nights"])
    print_json(night) if as_json else typer.echo(f"night {night['id']}: {night['why']}")
    raise typer.Exit(0 if night["promoted"] else 1)


def _plan(home: Any) -> dict[str, Any]:
    from daemon.plan import plan_now
    from daemon.run import read_config
    from memory.store import Store

    with Store(home.store, read_only=True) as store:
        return plan_now(home, store, store.results(), read_config(home)).model_dump(mode="json")


def _tell_plan(plan: dict[str, Any], data: dict[str, Any] | None) -> None:
    typer.echo(f"{'a night would be held' if plan['would_sleep'] else 'no night would be held'}: {plan['why']}")
    typer.echo(f"replayed tasks       {plan['replayed']}")
    for name, counts in (("own successes", plan["own_successes"]), ("merged fixes", plan["merged_fixes"])):
        typer.echo(f"{name:<20} {', '.join(f'{repo} {count}' for repo, count in counts.items()) or 'none'}")
    if data is None:
        return
    typer.echo(f"pairs                {data['pairs']} of {data['attempts']} attempts, made {data['made_by']}")
    typer.echo(f"kept                 {data['kept']}, {data['tokens']:,} tokens")
    typer.echo(f"dropped              {', '.join(f'{why} {count}' for why, count in data['dropped'].items()) or 'none'}")
    for why, examples in data["shown"].items():
        typer.echo(f"  {why:<18} {examples[0]}")
    for scope, sizes in data["lessons"].items():
        told = ", ".join(f"{count} {name}" for name, count in sizes.items())
        typer.echo(f"would train          {scope} by {data['strategy']}: {told}")


def _wait_for_night(home: Any, before: int) -> dict[str, Any]:
    from daemon.client import ask

    while ask(home.socket, "GET", "/status")["nights"] <= before:
        time.sleep(POLL_SECONDS)
    return dict(ask(home.socket, "GET", "/nights?last=1")[-1])


def wake_now(home: HomeOption = None, as_json: Json = False) -> None:
    """Break off the night; nothing of it is put to work."""
    _post(home, "/wake", as_json)


def pause(home: HomeOption = None, as_json: Json = False) -> None:
    """Take no more tasks and hold no nights until `resume`, also after a restart."""
    _post(home, "/pause", as_json)


def resume(home: HomeOption = None, as_json: Json = False) -> None:
    """Go on after `pause`."""
    _post(home, "/resume", as_json)


def stop(
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Come back when the process has ended.")] = True,
    as_json: Json = False,
) -> None:
    """End the daemon; what it is doing is taken up again by the next one."""
    from daemon.home import Home, daemon_in

    _post(home, "/stop", as_json)
    while wait and daemon_in(Home.at(home)) is not None:
        time.sleep(0.1)


def _post(home: Any, target: str, as_json: bool) -> None:
    from daemon.client import ask
    from daemon.home import Home

    answer = ask(Home.at(home).socket, "POST", target)
    print_json(answer) if as_json else typer.echo(answer["what"])
