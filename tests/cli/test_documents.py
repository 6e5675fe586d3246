"""The examples of README and docs do what they say, and links lead somewhere.

Each example runs in a folder of its own, where what it writes stays.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_cli.main import main
from torch import nn

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", *(ROOT / name / "README.md" for name in ("benchmarks", "plugins/speech"))]
ELSEWHERE = (
    *("# huggingface", "# onnx", "# torchscript", "# torch.export", "# s3prl", "# dphubert"),
    *('"""A plugin', "l0prune.cut("),
)
"""Begin those that the tests of the exports, of the plugin and of cuts run."""
TOO_LONG = "report = l0prune.compress("
"""Begins the recipe `quick`, whole."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


EXAMPLES = [
    (name_of(page), example)
    for page in PAGES
    for example in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
]
RUN_HERE = [
    pytest.param(page, example, id=f"{page}: {next(line for line in example.splitlines() if '(' in line)[:40]}")
    for page, example in EXAMPLES
    if not example.startswith((*ELSEWHERE, TOO_LONG))
]


def given(example: str, finished: Any, folder: Path) -> dict[str, Any]:
    """What an example takes from its reader: names, or a run in `folder`."""
    if 'l0prune.load("runs/speech-quick")' in example:
        shutil.copytree(finished.folder, folder / "runs" / "speech-quick")
    if "wrap(model" in example and "model =" not in example:
        model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
        batches = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(300)]
        return {
            "model": model,
            "example_inputs": torch.randn(2, 6),
            "batches": batches,
            "cross_entropy": nn.functional.cross_entropy,
        }
    return {}


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def same(first: nn.Module, second: nn.Module, inputs: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(first(inputs), second(inputs))


@pytest.mark.parametrize(("page", "example"), RUN_HERE)
def test_every_example_runs(
    page: str, example: str, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = given(example, finished, tmp_path)
    there = set(tmp_path.iterdir())
    exec(compile(example, page, "exec"), names)
    written = {path.name for path in set(tmp_path.iterdir()) - there}
    if "features" in names:  # A student opens in three lines.
        assert names["features"][-1].shape == (2, 49, 32)
        assert names["lengths"].tolist() == [49, 37]
    if "schedule" in names:  # A loop of one's own.
        assert names["pruner"].settled
        assert names["schedule"].get_last_lr() == [0.0]
        assert size(names["smaller"]) <= size(names["model"]) / 2
    if "again" in names:  # What is saved opens again.
        assert len(written) == 1
        assert same(names["smaller"], names["again"], torch.randn(4, 1, 8, 8))
        assert size(names["smaller"]) <= size(names["build"]()) / 2
    if "report" in names:
        assert written == {"runs"}
        assert size(names["small"]) == names["report"].params_after
    if "drawn" in names:
        assert written == {"runs", "figures"}
        assert [point.run for point in names["drawn"].points] == ["half", "quarter"]
    if "export" in names:  # What is quantised is near, and in its place.
        assert written == {"out"}
        assert names["export"].signal_to_noise_db > 20
    if not {"again", "report", "drawn", "export"} & set(names):
        assert written == set()


def test_what_is_checked_above_is_in_the_examples() -> None:
    text = "".join(example for _, example in EXAMPLES)
    for name in ("features", "schedule", "again", "report", "drawn", "export"):
        assert re.search(rf"\b{name}\b.* = ", text)


COMMANDS = {
    (name_of(page), re.sub(r"\s+", " ", " ".join(words)))
    for page in [*PAGES, ROOT / "benchmarks" / "README.md"]
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for words in re.findall(r"(?:\bl0prune|-m l0prune_cli) (\w+)\b([^\n]*)", block.replace("\\\n", " "))
}
"""Page, and a command with its arguments."""


def test_commands_have_flags_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    helps: dict[tuple[str, ...], str] = {}
    wrong = []
    for page, line in sorted(COMMANDS):
        command, *words = (word.strip("'\"();") for word in line.split("#")[0].split())
        plugin = words[words.index("--plugin") : words.index("--plugin") + 2] if "--plugin" in words else []
        asked = (command, *plugin)
        if asked not in helps:
            monkeypatch.setattr("sys.argv", ["l0prune", *asked, "--help"])
            with pytest.raises(SystemExit) as left:
                main()
            helps[asked] = capsys.readouterr().out
            assert left.value.code in (0, None), f"{page}: l0prune {command}"
        flags = [word for word in words if word.startswith("--")]
        wrong += [f"{page}: {command} {flag}" for flag in flags if not re.search(rf"{flag}\b(?!-)", helps[asked])]
    assert len(COMMANDS) >= 15
    assert wrong == []


def test_the_readme_holds_both_lines_that_set_everything_up_and_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition(" ")[2] for line in lines] == ["speech", "pytest"]
    assert len(text.encode()) <= 8192


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Targets of a page's relative links and pictures, each as a path and the heading behind #."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, heading = target.partition("#")
            yield path, heading


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for path, heading in links(page):
        target = (page.parent / path).resolve() if path else page
        found = target.exists() and target.is_relative_to(ROOT)
        if not found or (heading and heading not in anchors(target)):
            wrong.append(f"{path}#{heading}")
    assert wrong == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / path).resolve() for path, _ in links(index)}
    assert [name_of(page) for page in PAGES if page not in (README, index) and page not in listed] == []
