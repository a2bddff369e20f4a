"""The koans as they are written down: one TOML table each, one file for each family, in `rust/`.

A case is a line `EXPRESSION ==> DEBUG TEXT`. The harness that is compiled for grading holds only the
expressions; what they must print stays on this side of the sandbox (see `eval.koans.grading`).
"""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.errors import EvalError

FAMILIES = ("borrow", "lifetimes", "traits", "results", "types")
SOURCE = "koan.rs"
HARNESS = "tests/hidden.rs"
ANSWERS = "tests/hidden.json"
ARROW = " ==> "
DIFFICULTIES = ("<15 min fix", "15 min - 1 hour")

Replacements = tuple[tuple[str, str], ...]

_VISIBLE = """
#[cfg(test)]
mod tests {{
    use super::*;
{cases}}}
"""
_VISIBLE_CASE = """
    #[test]
    fn example_{number}() {{
        assert_eq!(format!("{{:?}}", {expression}), r#"{answer}"#);
    }}
"""
_HARNESS = """mod cases {{
    #[allow(unused_imports)]
    use koan::*;
{cases}}}

fn main() {{
    let marker = ::std::env::args().nth(1).unwrap_or_default();
    let all: &[(&str, fn() -> ::std::string::String)] = &[{table}];
    for (name, case) in all {{
        if let Ok(text) = ::std::panic::catch_unwind(case) {{
            let hex: ::std::string::String = text.bytes().map(|byte| ::std::format!("{{byte:02x}}")).collect();
            ::std::println!("\\n{{marker}} {{name}} {{hex}}");
        }}
    }}
}}
"""
_HARNESS_CASE = """    pub fn {name}() -> ::std::string::String {{
        ::std::format!("{{:?}}", {expression})
    }}
"""


class Koan(BaseModel):
    """One koan.

    `codes` and `message` are the signature of what is wrong with `broken` (rustc's error codes, and its
    first complaint as `eval.koans.signatures` normalises it; a koan that builds and panics has no codes).
    `fix` replaces text of `broken`, `wrong` text of the fixed source: plausible, compiles, and is not right.
    `hidden` cases fail before the fix; `kept` cases pass before and after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$")
    held_out: bool = False
    codes: tuple[str, ...]
    message: str
    difficulty: str
    symbol: str = Field(min_length=1)
    issue: str = Field(min_length=1)
    broken: str
    fix: Replacements = Field(min_length=1)
    wrong: Replacements = Field(min_length=1)
    visible: str
    hidden: str
    kept: str = ""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.difficulty not in DIFFICULTIES:
            raise ValueError(f"difficulty {self.difficulty!r} is none of {', '.join(DIFFICULTIES)}")
        if not cases(self.visible) or not cases(self.hidden):
            raise ValueError("a koan needs visible and hidden cases")
        if {*cases(self.visible)} & {*cases(self.hidden), *cases(self.kept)}:
            raise ValueError("a visible case is hidden as well")
        replaced(replaced(self.broken, self.fix), self.wrong)
        return self

    @property
    def source(self) -> str:
        """The file as the agent finds it, visible tests included."""
        return self.broken + self._tests

    @property
    def fixed(self) -> str:
        """The same file, mended."""
        return replaced(self.broken, self.fix) + self._tests

    @property
    def mistaken(self) -> str:
        """The same file after a change that builds but does the wrong thing."""
        return replaced(replaced(self.broken, self.fix), self.wrong) + self._tests

    @property
    def fail_to_pass(self) -> tuple[str, ...]:
        """Ids of the hidden cases that the fix makes pass."""
        return tuple(f"hidden.rs::case_{number}" for number in range(len(cases(self.hidden))))

    @property
    def pass_to_pass(self) -> tuple[str, ...]:
        """Ids of the hidden cases that must go on passing."""
        return tuple(f"hidden.rs::kept_{number}" for number in range(len(cases(self.kept))))

    @property
    def tests(self) -> dict[str, str]:
        """The hidden harness and, in a file of their own, its answers."""
        names = [test.partition("::")[2] for test in (*self.fail_to_pass, *self.pass_to_pass)]
        asked = [*cases(self.hidden), *cases(self.kept)]
        bodies = (
            _HARNESS_CASE.format(name=name, expression=expression) for name, (expression, _) in zip(names, asked, strict=True)
        )
        harness = _HARNESS.format(cases="".join(bodies), table=", ".join(f'("{name}", cases::{name})' for name in names))
        answers = {name: answer for name, (_, answer) in zip(names, asked, strict=True)}
        return {HARNESS: harness, ANSWERS: json.dumps(answers, ensure_ascii=False)}

    @property
    def _tests(self) -> str:
        bodies = (
            _VISIBLE_CASE.format(number=number, expression=expression, answer=answer)
            for number, (expression, answer) in enumerate(cases(self.visible))
        )
        return _VISIBLE.format(cases="".join(bodies))


def cases(text: str) -> list[tuple[str, str]]:
    """Expression and expected debug text of each line."""
    found = []
    for line in text.splitlines():
        expression, arrow, answer = line.rpartition(ARROW)
        if not arrow or not expression:
            raise ValueError(f"{line!r} is no case; it would read EXPRESSION{ARROW}DEBUG TEXT")
        found.append((expression, answer))
    return found


def replaced(text: str, pairs: Replacements) -> str:
    """`text` with every occurrence of each old text replaced by the new one, in order."""
    for old, new in pairs:
        if old not in text:
            raise ValueError(f"{old!r} is not in the source")
        text = text.replace(old, new)
    return text


@cache
def book() -> dict[str, tuple[Koan, ...]]:
    """All koans by family, in order.

    Raises:
        EvalError: a file of them is damaged.
    """
    found: dict[str, tuple[Koan, ...]] = {}
    for family in FAMILIES:
        source = files("eval.koans") / "rust" / f"{family}.toml"
        try:
            tables = tomllib.loads(source.read_text(encoding="utf-8"))["koan"]
            found[family] = tuple(Koan.model_validate(table) for table in tables)
        except (OSError, ValueError, KeyError, ValidationError) as error:
            raise EvalError(f"{source}: the koans cannot be read ({error}); install the package again") from error
    return found
