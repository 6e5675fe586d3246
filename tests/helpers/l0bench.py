"""The package of `benchmarks/l0bench`, by itself.

Were `benchmarks/` on the path, its commands would hide installed packages of their names, such as `whisper`.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "benchmarks" / "l0bench")]
