"""Runs and exports on the Hugging Face hub, each with a model card."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from os.path import isdir, isfile  # Unlike those of a Path, for any name: it may be longer than a path's.
from pathlib import Path
from typing import Any

from l0prune.errors import ConfigError, L0PruneError, RunError
from l0prune.plugin import Carded, CardFacts, get_plugin
from l0prune.report import RunFacts, Shown, missing, model_card, run_facts
from l0prune.support import SUMS, check_inside, file_digest, listed, one_line

_KEPT_HERE = ("checkpoints", "exports", "report-figures", "run.json", "run.lock", "latency.json", "report.html")
"""What a run's folder holds beside the network and is for those who made it."""
_NO_PLUGINS = ("", "wrap", "task")
"""What runs of a caller's own code have in the place of a plugin's name."""
_CARD, _PICTURE, _SETTINGS = "README.md", "architecture.png", "config.toml"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What is on the hub now."""

    repo: str
    url: str
    """Of the commit."""
    files: tuple[str, ...]
    notes: tuple[str, ...]
    """What the card lacks, and what is public by now."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def push_to_hub(
    source: str | Path,
    repo: str,
    *,
    run: str | Path | None = None,
    facts: CardFacts | None = None,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Put a run or an export on the Hugging Face hub in one commit, with a model card.

        push_to_hub("runs/base", "me/smaller", facts=CardFacts(license="apache-2.0", language=("en",)))

    Args:
        source: A run directory; or an exported folder or file.
        repo: Owner and name; it is made if need be.
        run: The run that an export was made of; one in the run's `exports/` knows it.
        facts: What the card is to say and no file tells; a plugin knows some of it.
        private: Make a private repository.
        token: Of the hub; by default the one that `hf auth login` or HF_TOKEN gives.
        revision: A branch.
        message: Of the commit.

    Returns:
        Where it is.

    Raises:
        ConfigError: huggingface_hub is missing, there is no token, or the name of the repository cannot be one.
        RunError: The source is no run and no export, or is damaged.
        L0PruneError: The hub refuses or cannot be reached.
    """
    contents = _contents(source, repo, run, facts)
    hub = _library()
    token = token or hub.get_token()
    if not token:
        raise ConfigError("no token for the hub", where=repo, hint="run `hf auth login`, or set HF_TOKEN")
    said = message or f"{Path(source).resolve().name}, by l0prune"
    try:
        api = hub.HfApi(token=token, library_name="l0prune")
        # One that is there need not be made, which a token for it alone may not do.
        if not api.repo_exists(repo):
            api.create_repo(repo, private=private, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=part if isinstance(part, bytes) else str(part))
            for name, part in contents.files.items()
        ]
        commit = api.create_commit(repo, operations, commit_message=said, revision=revision)
    except hub.errors.HFValidationError as error:
        raise ConfigError("no name of a repository", where=repo, got=one_line(error), expected="OWNER/NAME") from error
    except Exception as error:
        # Of the network, of the hub, or of the library.
        what, hint = _refusal(error)
        raise L0PruneError(what, where=repo, got=one_line(error), hint=hint) from error
    return Pushed(repo=repo, url=str(commit.commit_url), files=tuple(contents.files), notes=contents.notes)


def card_of(source: str | Path, repo: str, *, run: str | Path | None = None, facts: CardFacts | None = None) -> str:
    """The model card that `push_to_hub` writes; nothing is sent.

    Raises:
        L0PruneError: The source is no run and no export, or is damaged.
    """
    card = _contents(source, repo, run, facts).files[_CARD]
    assert isinstance(card, bytes)
    return card.decode("utf-8")


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """What goes to the hub."""

    files: Mapping[str, Path | bytes]
    """By name."""
    notes: tuple[str, ...]


def _contents(source: str | Path, repo: str, run: str | Path | None, facts: CardFacts | None) -> _Contents:
    path = Path(source)
    if not isdir(path) and not isfile(path):
        raise RunError("no such run or export", where=source)
    is_run = isfile(path / "model.json") and isfile(path / _SETTINGS)
    if isdir(path) and not is_run and isfile(path / _SETTINGS):
        raise RunError("the run has no model yet", where=source, hint="finish it with --resume")
    origin = path if is_run else Path(run) if run else _origin(path)
    found = run_facts(origin, origin.resolve().name) if origin else None
    files: dict[str, Path | bytes] = dict(_files(path, is_run))
    if not files:
        raise RunError("nothing to push", where=source, expected="a run directory, or an exported file or folder")
    if origin and _PICTURE not in files and isfile(origin / _PICTURE):
        files[_PICTURE] = origin / _PICTURE
    facts = _completed(facts or CardFacts(), found, origin)
    own = files.get(_CARD)
    library, opening = _opened(path, repo, is_run, found is not None and found.plugin not in _NO_PLUGINS)
    shown = Shown(
        repo=repo,
        library=library,
        opening=opening,
        picture=_PICTURE if _PICTURE in files else "",
        config=_SETTINGS if _SETTINGS in files else "",
        body=_without_head(own.read_text(encoding="utf-8")) if isinstance(own, Path) else "",
    )
    files[_CARD] = model_card(shown, facts, found).encode("utf-8")
    if isinstance(sums := files.get(SUMS), Path):
        files[SUMS] = _with_card(sums, files[_CARD])
    return _Contents(files=files, notes=tuple(_notes(facts, found, files)))


def _files(path: Path, is_run: bool) -> Iterator[tuple[str, Path]]:
    """What of a run or an export is sent, by name."""
    if isfile(path):
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not file.is_file() or hidden or (is_run and name.split("/")[0] in _KEPT_HERE):
            continue
        check_inside(file, path)
        yield name, file


def _origin(export: Path) -> Path | None:
    """The run that an export stands in."""
    folder = export.resolve().parent.parent
    return folder if export.resolve().parent.name == "exports" and isfile(folder / _SETTINGS) else None


def _completed(facts: CardFacts, run: RunFacts | None, origin: Path | None) -> CardFacts:
    """What the caller says, then what the plugin of the run knows."""
    if run is None or origin is None or run.plugin in _NO_PLUGINS:
        return facts
    plugin = get_plugin(run.plugin)
    if not isinstance(plugin, Carded):
        return facts
    known = plugin.card_facts(run.settings.get(run.plugin, {}))
    return replace(known, **{f.name: getattr(facts, f.name) for f in fields(facts) if getattr(facts, f.name)})


def _opened(path: Path, repo: str, is_run: bool, by_plugin: bool) -> tuple[str, str]:
    """The library of the files, as hubs call it, and how it opens them."""
    here = f'folder = huggingface_hub.snapshot_download("{repo}")'
    if is_run:
        call = "l0prune.load(folder)" if by_plugin else "l0prune.load(folder, build)  # build() makes the dense network"
        return "l0prune", f"import huggingface_hub, l0prune\n\n{here}\nnetwork = {call}"
    if isfile(path / "config.json") and not isfile(path / "model.bin"):
        code = isfile(path / "modeling_l0prune.py") or any(path.glob("*.py"))
        trusted = ", trust_remote_code=True" if code else ""
        opened = f'model = AutoModel.from_pretrained("{repo}"{trusted})'
        return "transformers", f"from transformers import AutoModel\n\n{opened}"
    if isfile(path / "model.bin"):
        return "ctranslate2", f"import huggingface_hub\n\n{here}"
    onnx = path.suffix == ".onnx" or (isdir(path) and any(path.glob("*.onnx")))
    return ("onnx" if onnx else "l0prune"), f"import huggingface_hub\n\n{here}"


def _without_head(card: str) -> str:
    """What an export says of itself, without YAML and title."""
    if card.startswith("---\n"):
        card = card[4:].partition("\n---\n")[2]
    lines = card.strip().splitlines()
    return "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines).strip()


def _with_card(sums: Path, card: bytes | Path) -> bytes:
    """The digests of the export's files, with that of the card which takes the place of another."""
    assert isinstance(card, bytes)
    with tempfile.TemporaryDirectory() as place:
        written = Path(place) / _CARD
        written.write_bytes(card)
        digest = file_digest(written)
    lines = sums.read_text(encoding="utf-8").splitlines()
    return "".join(f"{digest}  {_CARD}\n" if line.endswith(f"  {_CARD}") else f"{line}\n" for line in lines).encode()


def _notes(facts: CardFacts, run: RunFacts | None, files: Mapping[str, object]) -> Iterator[str]:
    if lacking := missing(facts):
        yield f"the card says nothing of {listed(lacking)}"
    if run is None:
        yield "the run is unknown, so that the card has no sizes, scores and speeds: name it"
    elif not run.scores:
        yield "the card has no scores: write evaluation.json into the run's folder by `l0prune evaluate`"
    if run is not None and not run.bench:
        yield "the card has no speeds: write bench.json into the run's folder by `l0prune bench --json`"
    if _SETTINGS in files and run is not None and any(_paths(run.settings)):
        yield f"{_SETTINGS} and report.json name folders of this machine"


def _paths(settings: Any) -> Iterator[str]:
    """Texts that are paths from the root."""
    if isinstance(settings, Mapping):
        for value in settings.values():
            yield from _paths(value)
    elif isinstance(settings, str):
        yield from [settings] if Path(settings).is_absolute() else []
    elif isinstance(settings, Sequence):
        for value in settings:
            yield from _paths(value)


def _refusal(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the hub refuses", "the token must be able to write to the repository: `hf auth login`"
    if status is not None:
        return "the hub refuses", "try again later, or another name"
    return "the hub cannot be reached", "check the connection, and HF_ENDPOINT"


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        hint = "pip install huggingface_hub"
        raise ConfigError("huggingface_hub is not installed", got=one_line(error), hint=hint) from error
    return huggingface_hub
