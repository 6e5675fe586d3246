"""The pages build as a site: every link and heading is there, and so are the pages that are made of other files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).parents[2]


def build(out: Path, config: Path = ROOT / ".ci/mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    written = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    examples = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs/examples").glob("*.py")}
    made = {Path("changes"), Path("citation"), Path("benchmarks/index"), Path("reference/api")}
    assert len(examples) >= 3
    for page in written | examples | made:
        assert (tmp_path / "site" / f"{page}.html").is_file(), page
    # A reader of the site sees the packages whose parts the page on extensions shows.
    pages = [tmp_path / "site" / "how-to" / f"{name}.html" for name in ("extend", "own-metric")]
    page = "".join(path.read_text(encoding="utf-8") for path in pages)
    for package in (ROOT / "tests/core/extensions").glob("*/l0prune_*.py"):
        assert (tmp_path / "site" / "packages" / f"{package.stem}.html").is_file()
        assert f'href="../packages/{package.stem}.html"' in page
    names = (tmp_path / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in names for name in ("wrap", "prune", "compress"))
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="changes.html"' in index
