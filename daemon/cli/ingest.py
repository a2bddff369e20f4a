"""`sleepyctl ingest`: other agents' sessions, redacted, become trajectories that the knowledge layer learns from."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table

INTERRUPTED = 130

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.home import Home
    from memory.ingest.ingest import Bundle, FileReport
    from memory.store import Store
    from memory.trajectories import Trajectory


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ingest)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: .traj, .traj.json, Claude Code's .jsonl.")],
    home: HomeOption = None,
    repo: Annotated[str, typer.Option(help="The repository they are about, instead of what the files say.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report; store nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Import sessions of SWE-agent, mini-swe-agent and Claude Code. Secrets are taken out before anything is stored.

    They are used for knowledge, not for training. Exit code 1 if a file had a problem; after Ctrl-C the same command goes on.
    """
    from daemon.home import Home, daemon_in
    from memory.errors import RecordError
    from memory.ingest.ingest import Bundle, files, keep, new_of, read

    place = Home.at(home)
    running = place.root.is_dir() and daemon_in(place) is not None
    reports: list[FileReport] = []
    with _store(place, dry_run or running) as store:
        try:
            for path, report in files(paths):
                found: list[Trajectory] = []
                if report is None:
                    report, found = read(path, repo)
                if (new := new_of(found, store, report)) and not dry_run:
                    try:
                        bundle = Bundle.of(new)
                        _hand_over(place, bundle) if running or store is None else keep(store, bundle)
                    except RecordError as error:
                        report.problem = str(error)
                reports.append(report)
        except KeyboardInterrupt:
            note("stopped; the sessions of these files are kept, and the same command goes on from here")
            raise typer.Exit(INTERRUPTED) from None
        finally:  # what was kept before a full disk, too
            _tell(reports, as_json)
    if running and not dry_run:
        note("a daemon runs: the redacted sessions were put into its inbox")
    if any(report.problem for report in reports):
        raise typer.Exit(1)


@contextmanager
def _store(home: Home, read_only: bool) -> Iterator[Store | None]:
    """The store: only to look things up in, if there is one, or owned like a daemon owns it."""
    from daemon.home import alone_in, owned
    from memory.store import Store

    if read_only:
        if not home.store.is_file():
            yield None
            return
        with Store(home.store, read_only=True) as store:
            yield store
        return
    home.make()
    with alone_in(home), owned(home.lock, "a daemon"), Store(home.store) as store:
        yield store


def _hand_over(home: Home, bundle: Bundle) -> None:
    """Put a bundle into the inbox, whole. Raises `DaemonError` where that cannot be written to."""
    from daemon.errors import DaemonError
    from memory.files import write_whole
    from memory.hashing import content_hash
    from memory.ingest.ingest import BUNDLE

    name = f"{content_hash([trajectory.id for trajectory in bundle.trajectories])}{BUNDLE}"
    try:
        write_whole(home.inbox / name, bundle.model_dump_json())
    except OSError as error:
        raise DaemonError(f"{home.inbox} cannot be written to ({error}); the rest is for the next time") from error


def _tell(reports: list[FileReport], as_json: bool) -> None:
    if as_json:
        print_json([report.model_dump() for report in reports])
        return
    rows = [
        (one.file, one.reader, one.sessions - one.known, one.known, one.steps, sum(one.redactions.values()), one.malformed)
        for one in reports
    ]
    print_table(("file", "reader", "new", "known", "steps", "redacted", "malformed"), rows, "no files")
    total: dict[str, int] = {}
    told: dict[str, list[str]] = {}
    for report in reports:
        for kind, count in report.redactions.items():
            total[kind] = total.get(kind, 0) + count
        for line in (report.problem, *report.reasons, *report.notes, _counted("left out", report.left_out)):
            told.setdefault(line, []).append(report.file)
    for line, names in told.items():
        if line:
            note(f"{names[0]}: {line}" if len(names) == 1 else f"{len(names)} files: {line}")
    if total:
        typer.echo(_counted("redacted", total))


def _counted(what: str, counts: dict[str, int]) -> str:
    return f"{what}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) if counts else ""
