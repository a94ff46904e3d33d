"""Puts libkvstore, and the two small libraries that it links, into the wheel.

Where it comes from: $KVSTORE_PREFIX/lib, what Scripts/install made, by default .build-install of this repository.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

SONAME = "libkvstore.so.0"
# Linked by libkvstore and not part of every Linux (the C and C++ runtimes are), and the Debian package of each, whose
# licence goes into the wheel with it.
LINKED = {"liblmdb.so": "liblmdb0", "libxxhash.so": "libxxhash0", "libzstd.so": "libzstd1"}
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def files() -> list[Path]:
    """The library, what it links, and the licences of that."""
    prefix = Path(os.environ.get("KVSTORE_PREFIX") or REPOSITORY / ".build-install")
    library = prefix / "lib" / SONAME
    if not library.exists():
        raise SystemExit(
            f"{library} is not there; run Scripts/install --prefix DIR and set KVSTORE_PREFIX=DIR"
        )
    linked = subprocess.run(["ldd", str(library)], check=True, capture_output=True, text=True).stdout
    found = [library]
    for name, path in re.findall(r"^\s*(\S+) => (/\S+)", linked, re.MULTILINE):
        package = LINKED.get(name.partition(".so")[0] + ".so")
        if package:
            found.append(Path(path))
            licence = Path("/usr/share/doc", package, "copyright")
            if licence.exists():
                found.append(licence)
    return found


class BuildWithLibrary(build_py):
    """Copies the libraries into the package; an editable install finds them by KVSTORE_LIBRARY instead."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "kvstore" / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        for file in files():
            # A library under its soname, which is what the loader compares.
            name = f"{file.parent.name}.copyright" if file.name == "copyright" else file.name
            target = folder / name
            target.unlink(missing_ok=True)
            shutil.copyfile(file.resolve(), target)


class BinaryDistribution(Distribution):
    """A distribution for one platform, although nothing in it is compiled against Python."""

    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """py3-none-PLATFORM: any Python 3, no Python ABI, this machine's kind."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
)
