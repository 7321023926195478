"""The official clients, installed outside the checkout. Standard library only."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def cache() -> Path:
    """Where installed clients are kept between runs: RAFTMQ_INTEROP_CACHE, or the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raftmq" / "interop"
    return Path(os.environ.get("RAFTMQ_INTEROP_CACHE") or default)


def _installed(kind: str, inputs: list[Path], install) -> Path:
    """The folder that `install(folder)` filled for these inputs, now or in an earlier run.

    A mark that is set last tells a whole one from what an interrupted run left behind.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    place = cache() / f"{kind}-{digest}"
    done = place / ".complete"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        print(f"installing the official {kind} client into {place}", file=sys.stderr, flush=True)
        install(place)
        done.touch()
    return place


def python() -> Path:
    """A Python interpreter that can import the official client."""
    requirements = HERE / "requirements.txt"

    def install(place: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "install", "-r", requirements], check=True, stdout=sys.stderr)

    return _installed("python", [requirements], install) / "bin" / "python"


def node() -> Path:
    """A folder with the official Node.js client under node_modules, and our producer beside it."""
    inputs = [HERE / "package.json", HERE / "package-lock.json"]

    def install(place: Path) -> None:
        for path in inputs:
            shutil.copy(path, place)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=place, check=True, stdout=sys.stderr)

    place = _installed("node", inputs, install)
    # Node resolves an import from where the importing file is.
    shutil.copy(HERE / "node_producer.mjs", place)
    return place


def run_inside_python() -> None:
    """Replaces this process by the same script under the interpreter that has the client."""
    interpreter = python()
    if Path(sys.prefix) != interpreter.parent.parent:
        os.execv(interpreter, [str(interpreter), *sys.argv])
