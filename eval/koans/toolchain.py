"""The Rust compiler of this machine, as the sandbox must see it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.sandbox.base import Limits
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.koans.book import SOURCE

LIMITS = Limits(seconds=60.0, memory_bytes=2 * 2**30, processes=64, file_bytes=64 * 2**20)
"""For the compiler and its linker; wall time is generous because the machine may be busy."""

_ADVICE = "install Rust (rustup, or the rustc package of your system) and a C compiler for linking"
_BUILD_AND_RUN = 'd=$(mktemp -d) || exit 1; trap \'rm -rf "$d"\' EXIT; "$@" --test -o "$d/koan" koan.rs && "$d/koan"'


@dataclass(frozen=True)
class Rust:
    """A compiler: `rustc` is the binary itself (no rustup proxy), `mounts` are what it must be able to read."""

    rustc: Path
    version: str
    mounts: tuple[Path, ...]

    def argv(self, *arguments: str) -> tuple[str, ...]:
        """A compiler call that refuses unsafe code and stays silent about warnings.

        Unsafe code is refused (`-F`, which the source cannot allow again) because it, `#[no_mangle]`
        and `#[link_section]` could run or replace code outside of the functions that are tested.
        """
        flags = ("--edition", "2021", "-A", "warnings", "-F", "unsafe_code")
        return (str(self.rustc), *flags, "-C", "debuginfo=0", "-C", "strip=symbols", *arguments)

    def workspace(self, root: Path, *readable: Path) -> Workspace:
        """A koan's workspace, whose test command builds the file with its visible tests and runs them."""
        test = ("/bin/sh", "-c", _BUILD_AND_RUN, "sh", *self.argv("--crate-name", Path(SOURCE).stem))
        return Workspace(root, test, (*self.mounts, *readable))


@cache
def rust() -> Rust:
    """The compiler on the PATH, asked once per process.

    Raises:
        EvalError: there is none, or no linker; the text says what to install.
    """
    found = shutil.which("rustc")
    if found is None or shutil.which("cc") is None:
        raise EvalError(f"koans need {'rustc' if found is None else 'cc'}, which is not on the PATH; {_ADVICE}")
    sysroot = Path(_said(found, "--print", "sysroot"))
    compiler = sysroot / "bin" / "rustc"
    if not compiler.is_file():
        raise EvalError(f"there is no {compiler}; {_ADVICE}")
    mounts = () if sysroot.is_relative_to("/usr") else (sysroot,)
    return Rust(compiler, _said(str(compiler), "--version"), mounts)


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise EvalError(f"{command[0]} does not run ({error}); {_ADVICE}") from error
    return done.stdout.strip()
