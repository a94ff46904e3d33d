"""What docs/engines/llama-cpp-python.md tells people to type: its installation, and its program. test_server.py has its server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

sys.path.append(str(Path(__file__).parents[1]))

from documented import lines, others, program  # noqa: E402

PAGE = "llama-cpp-python.md"
ROOT = Path(__file__).resolve().parents[4]
PREFIX = os.environ.get("KVSTORE_PREFIX") or str(ROOT / ".build-install")


def test_every_command_of_the_page_is_run() -> None:
    """Here and in test_server.py; the first one is what everything here was installed by."""
    installs = ("Scripts/install --prefix", "pip wheel", "pip install")
    assert others(PAGE, "python -m kvstore.llama_cpp", *installs) == []
    assert (ROOT / lines(PAGE)[0].split()[0]).exists()


@pytest.mark.slow
def test_the_installation_as_it_stands(tmp_path: Path) -> None:
    """In an environment of its own that has llama-cpp-python already, which takes minutes to compile."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages") and (Path(path) / "llama_cpp").exists())
    (packages / "engine.pth").write_text(here + "\n")
    home = tmp_path / "home"
    home.mkdir()
    (home / "kvstore").symlink_to(PREFIX)
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "Integrations/python", checkout / "Integrations/python", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("KVSTORE_", "PYTHONPATH"))}
    # pip looks for its settings where it finds its home.
    settings = {"PIP_CONFIG_FILE": str(Path.home() / ".config/pip/pip.conf")}
    if not Path(settings["PIP_CONFIG_FILE"]).exists():
        settings = {}
    path = f"{tmp_path}/venv/bin:{os.environ['PATH']}"
    for line in lines(PAGE)[1:3]:
        assert "pip" in line
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=checkout,
            env={**plain, **settings, "PATH": path, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, line + "\n" + done.stdout[-1500:] + done.stderr[-1500:]
    said = subprocess.run(
        ["python", "-c", "import kvstore, kvstore.llama_cpp; print(kvstore.__file__, kvstore.version())"],
        cwd=tmp_path,
        env={**plain, "PATH": path, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(str(packages)), said


def test_the_program_as_it_stands(tmp_path: Path) -> None:
    """Twice: the second process takes from the store what the first one computed."""
    gguf.write_model(tmp_path / "model.gguf")
    text = program(PAGE)
    for name, value in {"model.gguf": str(tmp_path / "model.gguf"), "/var/cache/kv": str(tmp_path / "store")}.items():
        assert name in text
        text = text.replace(name, value)
    whole = "import kvstore, kvstore.llama_cpp, llama_cpp\n" + text + _AFTER
    restored = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        restored.append(int(done.stdout.splitlines()[-1]))
    assert restored[0] == 0 and restored[1] > 0, restored


_AFTER = """
llama.create_completion(list(range(5, 505)), max_tokens=1)
print(llama.cache._store.stats()["restored_bytes"])
llama.cache._store.close()
"""
