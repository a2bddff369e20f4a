"""Images laid out like the benchmark's own, made of pieces of this machine: none can be pulled where tests run."""

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from agent.repositories import Mirror, checkout, pretend_version
from eval.swebench.docker.layout import ENVIRONMENT, PYTHON, REPOSITORY
from eval.swebench.native import runs
from eval.swebench.native.environments import Environment
from eval.swebench.native.recipes import Recipe

FUTURE = "the fix, as it was merged later"
PRODUCT = "built by the image.so"
_ACCOUNTS = {"etc/passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n", "etc/group": "nogroup:x:65534:\n"}
_LEFT_OUT = re.compile(r"(^|/)(test|idlelib|tkinter|ensurepip|config-[^/]*|site-packages|dist-packages)(/|$)")


def official_image(name: str, mirror: Mirror, commit: str, how: Recipe, native: Environment, folder: Path) -> None:
    """Import an image with a repository at a commit, built, and its environment; `folder` is for the pieces."""
    repository = folder / "testbed"
    made = checkout(mirror, commit, repository)
    runs.build(how, repository, pretend_version(mirror, commit))
    (repository / "build").mkdir(exist_ok=True)
    (repository / "build" / PRODUCT).write_text("product\n", encoding="utf-8")
    made.git_dir.rename(repository / ".git")
    (repository / ".git" / "COMMIT_EDITMSG").write_text(FUTURE, encoding="utf-8")
    with (repository / "setup.cfg").open("a", encoding="utf-8") as file:
        file.write("# edited before it was installed\n")
    words = ["docker", "import", "--change", f"ENV SLEEPY_COMPAT={','.join(how.compat)}", "-", name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as tar:
            _interpreter(tar, native, how)
            for path, text in _ACCOUNTS.items():
                _text(tar, path, text)
            tar.add(repository, REPOSITORY.lstrip("/"))
        process.stdin.close()
        assert process.wait(120) == 0
    shutil.rmtree(repository)


def _interpreter(tar: tarfile.TarFile, native: Environment, how: Recipe) -> None:
    asked = "import sys; print(sys.base_prefix, '%d.%d' % sys.version_info[:2])"
    said = subprocess.run([native.python, "-I", "-c", asked], capture_output=True, text=True, check=True)
    base, version = said.stdout.split()
    home, library = ENVIRONMENT.lstrip("/"), f"lib/python{version}"
    program = Path(base, "bin", f"python{version}").resolve()
    tar.add(program, PYTHON.lstrip("/"))
    tar.add(Path(base, library), f"{home}/{library}", filter=lambda member: None if _LEFT_OUT.search(member.name) else member)
    packages = next(native.python.parent.parent.glob("lib/python*/site-packages"))
    tar.add(packages, f"{home}/{library}/site-packages")
    paths = "\n".join(f"{REPOSITORY}/{path}" for path in how.paths)
    _text(tar, f"{home}/{library}/site-packages/editable.pth", f"{paths}\n")
    script = f"#!{PYTHON}\nimport sys\nfrom pytest import main\nsys.exit(main())\n"
    _text(tar, f"{home}/bin/pytest", script, 0o755)
    programs = [Path("/bin/sh").resolve(), Path("/usr/bin/env").resolve()]
    modules = [*Path(base, library, "lib-dynload").glob("*.so"), *packages.rglob("*.so*")]
    tar.add(programs[0], "bin/sh")
    tar.add(programs[1], "usr/bin/env")
    listed = subprocess.run(["ldd", program, *programs, *modules], capture_output=True, text=True, check=False).stdout
    found = [Path(path) for path in re.findall(r"=> (/\S+) \(", listed)]
    shared = {path.name: path.resolve() for path in found if not path.resolve().is_relative_to(packages.resolve())}
    for shared_name, path in shared.items():
        tar.add(path, f"usr/lib/{shared_name}")
    for loader in sorted(set(re.findall(r"^\s+(/\S*ld-\S+) \(", listed, re.MULTILINE))):
        tar.add(Path(loader).resolve(), loader.lstrip("/"))


def _text(tar: tarfile.TarFile, path: str, text: str, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(text.encode()), mode
    tar.addfile(member, io.BytesIO(text.encode()))
