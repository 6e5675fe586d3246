"""What the site shows beside the files of docs/, and where links lead that leave docs/. A hook of MkDocs.

The pages are written to be read in the repository, too: they link to files beside docs/. The site has those files as
pages of its own, the examples as pages with text and code, and a page of the docstrings of all public names.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
MOVED = {"CHANGELOG.md": "changes.md", "CITATION.cff": "citation.md", "benchmarks/README.md": "benchmarks/index.md"}
"""Files beside docs/, and the pages that the site makes of them."""
EXTENSIONS = "tests/core/extensions"
"""Packages of one file that extend l0prune; the page on extensions shows parts of them."""
API = "reference/api.md"
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files beside docs/."""
    for source in sources():
        if source.endswith(".png"):
            files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
        else:
            files.append(File.generated(config, page_of(source), content=text_of(source)))
    files.append(File.generated(config, API, content=docstrings()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to pages of the site; of others leave the text alone."""
    here = page.file.src_uri
    began = {page_of(source): source for source in sources()}.get(here, f"docs/{here}")
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _link(found, began, here), part) for part in parts[::2]]
    return "".join(parts)


def sources() -> list[str]:
    """Files of the repository beside the pages of docs/ that the site shows."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.[mp][dn]*"))
    examples = sorted((ROOT / "docs" / "examples").glob("*.py"))
    packages = sorted((ROOT / EXTENSIONS).glob("*/l0prune_*.py"))
    return [*MOVED, *(path.relative_to(ROOT).as_posix() for path in (*results, *examples, *packages))]


def page_of(source: str) -> str:
    """The page of a file of the repository."""
    if source in MOVED:
        return MOVED[source]
    if source.startswith(EXTENSIONS):
        return f"packages/{Path(source).stem}.md"
    return re.sub(r"\.py$", ".md", source.removeprefix("docs/"))


def text_of(source: str) -> str:
    """What a page holds."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".cff"):
        return f"# How to cite\n\n```yaml\n{text}```\n"
    if source.endswith(".py"):
        name = Path(source).stem.replace("_", " ")
        title = f"A package: {Path(source).stem}" if source.startswith(EXTENSIONS) else f"Example: {name}"
        return cells(text) if "\n# %%" in f"\n{text}" else f"# {title}\n\n```python\n{text}```\n"
    return text


def cells(text: str) -> str:
    """A script in cells (`# %%`) as text and code."""
    found = []
    for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            found.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        else:
            found.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(found) + "\n"


def docstrings() -> str:
    """A page of the names that `l0prune` lists, from where each is defined."""
    tree = ast.parse((ROOT / "l0prune" / "__init__.py").read_text(encoding="utf-8"))
    from_folder = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    listed = next(
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.List)
        and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    )
    shown = sorted(name for name in listed if not name.startswith("__"))
    entries = (f"::: {from_folder[name]}.{name}\n    options:\n      heading_level: 2\n" for name in shown)
    return "# Docstrings\n\n" + "\n".join(entries)


def _link(found: re.Match[str], began: str, here: str) -> str:
    picture, text, target, heading = found[1], found[2], found[3], found[4] or ""
    if not target or re.match(r"[a-z]+:", target):
        return found[0]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(began), target))
    place = "benchmarks/README.md" if place == "benchmarks" else place
    shown = {source: page_of(source) for source in sources()}
    if place in shown or place.startswith("docs/"):
        there = shown.get(place, place.removeprefix("docs/"))
        return f"{picture}[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{heading})"
    return text
