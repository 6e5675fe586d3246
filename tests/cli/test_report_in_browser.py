"""The report's page as a browser shows it, on a desk and on a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import l0prune

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """
<script>
addEventListener("load", () => {
  const box = element => { const b = element.getBoundingClientRect(); return [b.width, b.height]; };
  const seen = document.createElement("pre");
  seen.id = "seen";
  seen.textContent = JSON.stringify({
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    figures: [...document.querySelectorAll("figure")].map(figure => ({
      title: figure.querySelector("figcaption").textContent,
      size: box(figure.querySelector("svg")),
      paths: [...figure.querySelectorAll("svg path")].filter(path => Math.max(...box(path)) > 20).length,
      letters: [...figure.querySelectorAll("svg text")].map(text => Math.min(...box(text))),
    })),
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    ground: getComputedStyle(document.body).backgroundColor,
  });
  document.body.append(seen);
});
</script>
"""


def browse(page: Path, width: int, profile: Path, *flags: str) -> dict[str, Any]:
    """What a headless browser of a given width makes of a page. The page's own ban of requests is lifted for it."""
    text = page.read_text(encoding="utf-8")
    open_text = re.sub(r"<meta http-equiv=[^>]*>", "", text).replace("</body>", f"{MEASURE}</body>")
    assert len(open_text) != len(text)
    measured = page.with_name("measured.html")
    measured.write_text(open_text, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
    command += [f"--window-size={width},900", *flags, measured.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(unescape(found[1]))


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
@pytest.mark.parametrize(("width", "flags"), [(1280, ()), (390, ("--force-dark-mode",))], ids=["desk", "phone, dark"])
def test_every_figure_is_seen(finished, width: int, flags: tuple[str, ...], tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished.folder, tmp_path / "other"))
    (other / "report.json").unlink()
    written = l0prune.write_report([finished.folder, other], tmp_path / "page.html")
    seen = browse(Path(written.page), width, tmp_path / "profile", *flags)
    assert seen["width"] == width
    # Nothing makes the page itself scroll sideways, and nothing was asked for.
    assert seen["scroll"] <= width
    assert seen["requests"] == []
    assert [figure["title"] for figure in seen["figures"]] == [figure["title"] for figure in written.figures]
    for figure in seen["figures"]:
        assert min(figure["size"]) > 60, figure
        assert figure["size"][0] <= width
        assert figure["paths"] > 0, figure
        assert min(figure["letters"]) > 5, figure
    light = int(re.findall(r"\d+", seen["ground"])[0]) > 127
    assert light != bool(flags)
