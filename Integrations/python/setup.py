"""Puts libkvstore, the small libraries that it links, and the commands into the wheel.

Where they come from: $KVSTORE_PREFIX, what Scripts/install made, by default .build-install of this repository. Scripts/package
says in $KVSTORE_LICENCES where the licences of what is inside are, and in $KVSTORE_WHEEL_PLATFORM what the wheel is for.
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
PREFIX = Path(os.environ.get("KVSTORE_PREFIX") or REPOSITORY / ".build-install")


def version() -> str:
    """That of the header, which is the one place where it is written."""
    headers = [PREFIX / "include/kvstore.h", REPOSITORY / "Sources/CKVStore/include/kvstore.h"]
    text = next(header for header in headers if header.exists()).read_text(encoding="utf-8")
    return ".".join(
        re.search(rf"^#define KVSTORE_VERSION_{part} (\d+)$", text, re.MULTILINE)[1]
        for part in ("MAJOR", "MINOR", "PATCH")
    )


def files() -> list[Path]:
    """The library, what it links, and the licences of that."""
    library = PREFIX / "lib" / SONAME
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
        # kvstore-llama is the command too, when it is called so: one program, and the Swift runtime once.
        programs = [PREFIX / "bin" / name for name in ("kvstore-llama", "kvstore")]
        program = next((program for program in programs if program.exists()), None)
        if program:
            target = folder.parent / "bin" / program.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(program, target)
        if "KVSTORE_LICENCES" in os.environ:
            shutil.copytree(os.environ["KVSTORE_LICENCES"], folder.parent / "licences", dirs_exist_ok=True)


class BinaryDistribution(Distribution):
    """A distribution for one platform, although nothing in it is compiled against Python."""

    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """py3-none-PLATFORM: any Python 3, no Python ABI, this machine's kind."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", os.environ.get("KVSTORE_WHEEL_PLATFORM") or super().get_tag()[2])


setup(
    version=version(),
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
)
