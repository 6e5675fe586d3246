"""Distributions of tests, installed by pip into a folder."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# As pip asks a backend for a wheel, but one process builds them all.
_BUILD = """
import os, sys
from hatchling.build import build_wheel
for project in sys.argv[2:]:
    os.chdir(project)
    build_wheel(sys.argv[1])
"""


def installed(projects: Iterable[Path], folder: Path) -> Path:
    """A folder below `folder` for `sys.path`, with the projects, which hatchling builds."""
    wheels, site = folder / "wheels", folder / "site"
    wheels.mkdir()
    subprocess.run([sys.executable, "-P", "-c", _BUILD, wheels, *projects], check=True)
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--no-compile", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *wheels.iterdir()], check=True)
    return site
