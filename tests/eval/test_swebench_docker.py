"""Docker grading: what needs no engine, and what it does to hostile images and patches."""

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from pydantic import ValidationError

from agent.repositories import Checkout, Mirrors, RepositoryError, checkout, diff
from agent.sandbox import Limits
from agent.sandbox.docker import Docker
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.fetch import SOURCES
from eval.places import Places
from eval.sources import SWE_BENCH_CL, TasksConfig, open_source
from eval.swebench.dataset import Dataset, read
from eval.swebench.docker import layout
from eval.swebench.docker.dockerfiles import layers
from eval.swebench.docker.engine import Engine
from eval.swebench.docker.grader import DockerGrader
from eval.swebench.docker.images import OFFICIAL, Image, Images, Missing, named
from eval.swebench.docker.products import Products, is_product
from memory.trajectories import Outcome
from tests.eval.histories import History

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "swe-bench-cl.json"
IMAGE = Image("image:1", "sha256:1")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    if not DATA.is_file():
        pytest.skip(f"no {DATA}: sleepyctl data fetch swe-bench-cl, and name its folder in SLEEPYD_DATA")
    return read(DATA)


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A Docker client that only writes down what it is told, and knows the images named in `here`."""
    path = tmp_path / "docker"
    path.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/told
case "$1 $2" in
"version "*) echo amd64 ;;
"image inspect") for last; do :; done; grep -qx -e "$last" {tmp_path}/here && echo "sha256:$last" && exit 0
    echo "Error: No such image: $last" >&2; exit 1 ;;
"pull "*) for last; do :; done; echo "$last" >> {tmp_path}/here ;;
"build "*) for last; do :; done; cat "$last"/* >> {tmp_path}/built; echo "$6" >> {tmp_path}/here ;;
esac
""",
        encoding="utf-8",
    )
    path.chmod(0o755)
    (tmp_path / "here").touch()
    return path


def images(client: Path, dataset: Dataset, template: str = "", missing: Missing = "refuse") -> Images:
    return Images(Engine(executable=str(client)), dataset, Mirrors(client.parent / "mirrors"), template, missing)


# Names


def test_the_official_names_are_those_of_the_benchmarks_registry() -> None:
    assert named(OFFICIAL, "sympy__sympy-20154", "x86_64") == "swebench/sweb.eval.x86_64.sympy_1776_sympy-20154:latest"
    assert named("me/{id}:{arch}", "Pytest-dev__a-1", "arm64") == "me/pytest-dev__a-1:arm64"


@pytest.mark.parametrize(
    "template", ["mine", "mine:{arch}", "{ID}", "--privileged {id}", "-v{id}", "mine:{id", "a b/{id}", "{0}{id}"]
)
def test_a_setting_that_does_not_name_one_image_for_each_task_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match=r"with \{id\} or \{hub_id\} in it"):
        TasksConfig(image=template)


def test_a_missing_image_is_told_with_the_command_that_gets_it(client: Path, dataset: Dataset) -> None:
    with pytest.raises(
        EvalError, match=r"docker pull swebench/sweb\.eval\.x86_64\.sympy_1776_sympy-20154:latest.*missing_image"
    ):
        images(client, dataset).get("sympy__sympy-20154")
    assert "pull " not in (client.parent / "told").read_text()


def test_an_image_is_pulled_only_if_it_is_not_here(client: Path, dataset: Dataset) -> None:
    name = "swebench/sweb.eval.x86_64.sympy_1776_sympy-20154:latest"
    for _ in range(2):
        assert images(client, dataset, missing="pull").get("sympy__sympy-20154") == Image(name, f"sha256:{name}")
    assert (client.parent / "told").read_text().count(f"pull --quiet -- {name}\n") == 1
    assert images(client, dataset, "x/{hub_id}", "pull").get("sympy__sympy-20154").name == "x/sympy_1776_sympy-20154"


def test_an_engine_without_an_answer_is_not_an_image_that_is_missing(tmp_path: Path, dataset: Dataset) -> None:
    engine = Engine(f"unix://{tmp_path}/none")
    with pytest.raises(EvalError, match="docker"):
        engine.identity("image:1")
    grader = DockerGrader(dataset, Mirrors(tmp_path), Images(engine, dataset, Mirrors(tmp_path)), tmp_path)
    assert grader.grade("sympy__sympy-20154", "").outcome is Outcome.INFRASTRUCTURE_FAILURE


def test_the_configured_source_grades_in_images_and_says_so(
    client: Path, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    places = Places(tmp_path / "state")
    places.data.mkdir(parents=True)
    (places.data / SOURCES[SWE_BENCH_CL].file).symlink_to(DATA)
    names = set()
    for settings in ({}, {"grading": "docker"}, {"grading": "docker", "image": "mine:{id}"}):
        source = open_source(TasksConfig.model_validate({"source": SWE_BENCH_CL, **settings}), places)
        assert ("Docker on x86_64" in source.examine()) == bool(settings)
        names.add(source.stream(["sympy__sympy-20154"]).name)
    assert len(names) == 3  # what is compared by name must not mix


# Building


def test_three_layers_are_built_once_each_from_the_mirrors_requirements(client: Path, tmp_path: Path, dataset: Dataset) -> None:
    task, history = "django__django-11066", History(tmp_path / "django")
    sha = history.commit("one", {"tests/requirements/py3.txt": "asgiref >= 3.2\nPillow != 5.4.0\n"})
    (tmp_path / "tasks.json").write_text(
        DATA.read_text(encoding="utf-8").replace(dataset.base(task).commit, sha), encoding="utf-8"
    )
    found = images(client, read(tmp_path / "tasks.json"), missing="build")
    found.mirrors.adopt("django/django", history.folder)
    for _ in range(2):
        assert found.get(task).name == "sweb.eval.x86_64.django__django-11066:latest"
    told = (tmp_path / "told").read_text()
    below, between, top = re.findall(r"^build --quiet --platform linux/x86_64 --tag (\S+) -- ", told, re.MULTILINE)
    assert top == found.get(task).name
    built = (tmp_path / "built").read_text()
    assert re.findall(r"^FROM .*", built, re.MULTILINE) == [
        "FROM --platform=linux/x86_64 ubuntu:22.04",
        f"FROM --platform=linux/x86_64 {below}",
        f"FROM --platform=linux/x86_64 {between}",
    ]
    assert "asgiref >= 3.2\nPillow != 5.4.0" in built
    assert "conda create -n testbed python=3.6" in built
    assert f"git reset --hard {sha}" in built


def test_images_for_arm_are_built_for_arm(dataset: Dataset) -> None:
    base = dataset.base("sympy__sympy-20154")
    below, between, top = layers("sympy__sympy-20154", "sympy/sympy", base.version, base.commit, "arm64", str)
    assert {layer.platform for layer in (below, between, top)} == {"linux/arm64/v8"}
    assert "Linux-aarch64.sh" in below.dockerfile
    assert top.tag == "sweb.eval.arm64.sympy__sympy-20154:latest"
    assert "mpmath==1.3.0" in between.scripts["setup_env.sh"]


def test_a_commit_without_the_requirements_cannot_be_built(dataset: Dataset) -> None:
    def nothing(path: str) -> str:
        raise RepositoryError(path)

    base = dataset.base("pydata__xarray-3677")
    with pytest.raises(EvalError, match="environment"):
        layers("pydata__xarray-3677", "pydata/xarray", base.version, "0" * 40, "x86_64", nothing)


# Commands


def test_what_the_harness_would_run_is_run_without_a_shell() -> None:
    assert layout.recipe("django/django", "3.0").run[0] == "./tests/runtests.py"
    assert layout.recipe("django/django", "3.0").env["LC_ALL"] == "en_US.UTF-8"
    sympy = layout.recipe("sympy/sympy", "1.7")
    assert (sympy.run, sympy.witness) == (("bin/test", "-C", "--verbose"), "sympy")
    assert sympy.env == {"PYTHONWARNINGS": "ignore::UserWarning,ignore::SyntaxWarning"}
    assert layout.recipe("sphinx-doc/sphinx", "3.5").run[:5] == ("python", "-X", "dev", "-m", "pytest")


def test_every_task_of_the_benchmark_can_be_run(dataset: Dataset) -> None:
    for task in dataset.tasks():
        how = layout.recipe(task.repo, dataset.base(task.id).version)
        assert how.run
        assert not any(mark in word for word in how.run for mark in "|;&$`'\"")


def test_the_container_sees_the_workspace_where_the_image_has_its_repository(client: Path, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("image:1\n")
    client.write_text(client.read_text().replace("case", '[ "$3" = run ] && printf "%s\\n" "$@"\ncase'))
    root = tmp_path / "repo"
    root.mkdir()
    place = Workspace(root, (), (), {"A": f"/x:{root}/b:{root}", "B": f"{root}.git"})
    sandbox = Docker("image:1", "unix:///none", executable=str(client), at="/testbed")
    told = sandbox.run(("run", f"{root}/c", f"--d={root}"), place, Limits()).stdout.splitlines()
    assert told[-3:] == ["run", "/testbed/c", "--d=/testbed"]
    assert {"A=/x:/testbed/b:/testbed", f"B={root}.git"} < set(told)
    assert told[told.index("--workdir") + 1] == "/testbed"
    assert f"type=bind,source={root},target=/testbed" in told
    for flag in ("--read-only", "--cap-drop", "no-new-privileges", "--memory", "--pids-limit", "none"):
        assert flag in told


def test_what_was_verified_in_one_image_says_nothing_of_another(client: Path, tmp_path: Path, dataset: Dataset) -> None:
    task, decides = "sympy__sympy-20154", []
    for template in ("a:{id}", "b:{id}", "a:{id}"):
        (tmp_path / "here").write_text(f"{named(template, task, 'x86_64')}\n")
        found = images(client, dataset, template)
        decides.append(DockerGrader(dataset, found.mirrors, found, tmp_path / "products").decides(task))
    assert decides[0] == decides[2] != decides[1]


# What is taken out of an image


class Shelf(Engine):
    """An engine whose only image has these files; a value that is no text is a member as it is."""

    def __init__(self, files: Mapping[str, str | tarfile.TarInfo]) -> None:
        self.files, self.asked = files, 0

    @contextmanager
    def folder(self, image: str, path: str) -> Iterator[IO[bytes]]:
        self.asked += 1
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for name, content in self.files.items():
                member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo()
                member.name = f"testbed/{name}"
                body = b"" if isinstance(content, tarfile.TarInfo) else content.encode()
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
        data.seek(0)
        yield data


@pytest.fixture
def made(tmp_path: Path) -> Checkout:
    history = History(tmp_path / "history")
    history.commit("one", {"a.py": "a\n", "src/b.py": "b\n", ".gitignore": "*.so\n"})
    return checkout(Mirrors(tmp_path / "mirrors").adopt("a/b", history.folder), "HEAD", tmp_path / "work" / "repo")


TRACKED = {"a.py": "edited by the build\n", "src/b.py": "b\n", ".gitignore": "*.so\n"}


def odd(kind: bytes, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname, member.mode = kind, link, mode
    return member


def put(made: Checkout, files: Mapping[str, str | tarfile.TarInfo], folder: Path) -> Shelf:
    shelf = Shelf(files)
    Products(folder, shelf).put(made, IMAGE, "/testbed")
    return shelf


def test_products_are_added_and_are_no_change_of_the_agents(made: Checkout, tmp_path: Path) -> None:
    new = {"src/c.so": "elf", "x.egg-info/PKG-INFO": "x", "odd [a]*!.txt": "odd", "link.so": odd(tarfile.SYMTYPE, "src/c.so")}
    put(made, {**TRACKED, **new}, tmp_path / "kept")
    assert (made.root / "src" / "c.so").read_text() == "elf"
    assert (made.root / "link.so").read_text() == "elf"
    assert (made.root / "a.py").read_text() == "a\n"
    assert diff(made) == ""
    (made.root / "odd a.txt").write_text("the agent's\n")
    assert "+++ b/odd a.txt" in diff(made)
    assert diff(made).count("diff --git") == 1


def test_an_image_is_read_once_for_all_its_checkouts(made: Checkout, tmp_path: Path) -> None:
    shelf = put(made, {**TRACKED, "c.so": "elf"}, tmp_path / "kept")
    Products(tmp_path / "kept", shelf).put(made, IMAGE, "/testbed")
    assert shelf.asked == 1


def test_the_images_history_and_whatever_leads_out_of_it_stays_there(made: Checkout, tmp_path: Path) -> None:
    hostile = {
        ".git/HEAD": "future",
        "sub/.git/config": "[core]\n",
        "sub/.GIT": "gitdir: /\n",
        "../out": "out",
        "a/../../out": "out",
        "link": odd(tarfile.SYMTYPE, "/etc"),
        "link/passwd": "x",
        "up": odd(tarfile.SYMTYPE, "../.."),
        "git": odd(tarfile.SYMTYPE, ".git/HEAD"),
        "hard": odd(tarfile.LNKTYPE, "testbed/.git/HEAD"),
        "pipe": odd(tarfile.FIFOTYPE),
        "disk": odd(tarfile.BLKTYPE),
        "new\nline": "x",
        "__pycache__/a.pyc": "x",
        "set": odd(tarfile.REGTYPE, mode=0o6777),
    }
    put(made, {**TRACKED, **hostile}, tmp_path / "kept")
    there = {str(path.relative_to(made.root)) for path in made.root.rglob("*")}
    assert there == {"a.py", "src", "src/b.py", ".gitignore", "set", "link", "link/passwd"}
    assert not (made.root / "link").is_symlink()
    assert not (made.root / "set").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)
    assert {path.name for path in made.root.parent.iterdir()} == {"repo", "repo.git"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", ".git", ".git/hooks"])
def test_links_out_of_a_repository_are_no_products(target: str) -> None:
    assert not is_product(odd(tarfile.SYMTYPE, target), "link")
    assert is_product(odd(tarfile.SYMTYPE, "a/b"), "link")


def test_a_product_wins_over_a_patch_but_never_through_its_links(made: Checkout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (made.root / "c.so").write_text("forged")
    (made.root / "lib").symlink_to(outside)
    (made.root / "file").write_text("in the way")
    (made.root / "d.so").symlink_to(outside / "d")
    put(made, {**TRACKED, "c.so": "elf", "lib/e.so": "elf", "file/f.so": "elf", "d.so": "elf"}, tmp_path / "kept")
    assert (made.root / "c.so").read_text() == (made.root / "d.so").read_text() == "elf"
    assert list(outside.iterdir()) == []


def test_another_tasks_image_is_refused_and_leaves_nothing(made: Checkout, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="has 1 of the commit's 3 files"):
        put(made, {"a.py": "a\n", "c.so": "elf"}, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
