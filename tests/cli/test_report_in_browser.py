"""The report's page as a browser shows it, on a desk and on a phone."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

import l0prune

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """
<script>
addEventListener("load", () => {
  const box = element => { const b = element.getBoundingClientRect(); return [b.width, b.height]; };
  parent.document.getElementById("seen").textContent = JSON.stringify({
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
});
</script>
"""


def browse(page: Path, width: int, folder: Path, *flags: str) -> dict[str, Any]:
    """What a headless browser makes of a page of a given width; the page's own ban of requests is lifted for that."""
    text = page.read_text(encoding="utf-8")
    open_text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    assert open_text != text
    # A window cannot be as narrow as a phone, a frame can.
    inner = escape(open_text.replace("</body>", f"{MEASURE}</body>"))
    frame = f'<pre id="seen"></pre><iframe width="{width}" height="900" frameborder="0" srcdoc="{inner}"></iframe>'
    (folder / "frame.html").write_text(f"<!doctype html><meta charset=utf-8>{frame}", encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-extensions"]
    command += ["--no-first-run", f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1000", *flags]
    command.append((folder / "frame.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(unescape(found[1]))


@pytest.mark.usefixtures("loaded_here")
@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
@pytest.mark.parametrize(("width", "flags"), [(1280, ()), (390, ("--force-dark-mode",))], ids=["desk", "phone, dark"])
def test_every_figure_is_seen(
    finished, width: int, flags: tuple[str, ...], tmp_path: Path, l0prune_call: Callable[..., Any]
) -> None:
    other = Path(shutil.copytree(finished.folder, tmp_path / "other"))
    (other / "report.json").unlink()
    layers = [{"layer": layer, "teacher_layer": layer, "measures": {"cka": 0.9 - layer / 10}} for layer in range(3)]
    scores = [{"task": task, "mean": 0.625, "deviation": 0.1} for task in ("keyword", "speaker")]
    found = {key: [{"model": "it", **row} for row in rows] for key, rows in (("scores", scores), ("layers", layers))}
    (other / "evaluation.json").write_text(json.dumps(found))
    bench = l0prune_call("bench", finished.folder, "--seconds", "0.05", "--lengths", "0.5", "--json").succeeded()
    (other / "bench.json").write_text(bench.out)
    written = l0prune.write_report([finished.folder, other], tmp_path / "page.html")
    seen = browse(Path(written.page), width, tmp_path, *flags)
    titles = " ".join(figure["title"] for figure in seen["figures"])
    assert all(words in titles for words in ("keyword", "speaker", "Layers beside", "Latency in ms"))
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
