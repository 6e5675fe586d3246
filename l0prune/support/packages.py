"""Versions of the packages that matter to a result."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

_PACKAGES = ("l0prune", "torch", "torch-pruning", "numpy", "safetensors")


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and the packages that matter to a result, by name.

    Args:
        more: Names of distributions that matter beside those that the core needs: a plugin's. What is not installed
            is left out.
    """
    found = {"python": python_version()}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
