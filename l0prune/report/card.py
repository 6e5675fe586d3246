"""A model card: what a hub shows of a network, as Markdown below a head of YAML."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l0prune.plugin import CardFacts
from l0prune.report.facts import RunFacts
from l0prune.support import quantity, score

_LICENCES = "https://huggingface.co/docs/hub/repositories-licenses"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a card is about."""

    repo: str
    """Owner and name on the hub."""
    library: str
    """As hubs call it: what opens the files."""
    opening: str
    """Python that opens them."""
    picture: str = ""
    """The name of a picture among the files."""
    config: str = ""
    """The name of the settings among the files."""
    body: str = ""
    """More text: what the export itself says of its use."""


def model_card(shown: Shown, facts: CardFacts, run: RunFacts | None) -> str:
    """The card.

    Args:
        shown: The files.
        facts: What nothing in them tells.
        run: The run that made the network; None where that is unknown.
    """
    head = "\n".join(_head(shown, facts, run))
    return f"---\n{head}\n---\n\n" + "\n\n".join(_body(shown, facts, run)) + "\n"


def missing(facts: CardFacts) -> list[str]:
    """What a complete card has and this one lacks, by the names of YAML."""
    named = {
        "license": facts.license,
        "language": facts.language,
        "base_model": facts.base_model,
        "datasets": facts.datasets,
        "pipeline_tag": facts.pipeline_tag,
    }
    return [name for name, value in named.items() if not value]


def _head(shown: Shown, facts: CardFacts, run: RunFacts | None) -> Iterator[str]:
    if facts.license:
        yield _line("license", facts.license)
    yield from _list("language", facts.language)
    if facts.base_model:
        yield _line("base_model", facts.base_model)
        yield _line("base_model_relation", facts.base_model_relation)
    yield from _list("datasets", facts.datasets)
    yield _line("library_name", shown.library)
    if facts.pipeline_tag:
        yield _line("pipeline_tag", facts.pipeline_tag)
    yield from _list("tags", ["l0prune", "pruning", "structured-pruning"])
    scores = [row for row in (run.scores if run else ()) if "shuffled" not in row["metric"]]
    yield from _list("metrics", dict.fromkeys(_kind(row["metric"]) for row in scores))
    if scores:
        results = [_result(row, facts) for row in scores]
        # JSON is YAML, and no string in it can be taken for something else.
        yield "model-index: " + json.dumps([{"name": shown.repo.rpartition("/")[2], "results": results}])


def _result(row: Mapping[str, Any], facts: CardFacts) -> dict[str, Any]:
    data = str(row.get("data") or "unnamed")
    return {
        "task": {"type": facts.pipeline_tag or _kind(row["task"]), "name": row["task"]},
        "dataset": {"name": data, "type": data},
        "metrics": [{"type": _kind(row["metric"]), "name": row["metric"], "value": row["mean"]}],
    }


def _kind(words: str) -> str:
    """A metric as hubs name it."""
    return {"word error rate": "wer", "character error rate": "cer"}.get(words, words.replace(" ", "_"))


def _line(name: str, value: str) -> str:
    return f"{name}: {json.dumps(value)}"


def _list(name: str, values: Sequence[str] | Mapping[str, Any]) -> Iterator[str]:
    if values:
        yield f"{name}:"
        yield from (f"- {json.dumps(value)}" for value in values)


def _body(shown: Shown, facts: CardFacts, run: RunFacts | None) -> Iterator[str]:
    yield f"# {shown.repo.rpartition('/')[2]}"
    report = run.report if run else None
    base = facts.base_model or (report or {}).get("teacher") or "A larger network"
    if report:
        left = report["params_after"] / report["params_before"]
        yield f"{base} with {1 - left:.1%} of its parameters removed by structured pruning (l0prune)."
    else:
        yield f"{base}, made smaller by structured pruning (l0prune)."
    if shown.picture:
        yield f"![How many units of each layer are left]({shown.picture})"
    yield "## Use"
    yield f"```python\n{shown.opening}\n```"
    if shown.body:
        yield shown.body
    if run and report:
        yield "## Sizes"
        yield _table(["", "before", "after", "ratio"], _sizes(report))
    if run and (rows := _speeds(run)):
        yield "## Speed"
        where = (run.bench or {}).get("processor") or "an unnamed device"
        yield f"Measured on {where}."
        yield _table(["model", "load", "dtype", "backend", "threads", "latency", "times faster"], rows)
    if run and run.scores:
        yield "## Evaluation"
        rows = [
            (row["task"], row["metric"], score(row["mean"], row.get("deviation")), str(row.get("data") or ""))
            for row in run.scores
        ]
        yield _table(["task", "metric", "this network", "data"], rows)
    if run and report:
        yield "## How it was made"
        if (cut := report.get("cut")) is not None:
            # The settings beside it are those of the cut; the elastic run is not among the files.
            polish = f" --polish {cut['polish']}" if cut["polish"] is not None else ""
            yield "It was cut out of an elastic run of the same plugin."
            yield f"```bash\nl0prune cut ELASTIC_RUN --target {','.join(cut['target'].values())}{polish}\n```"
        elif run.repeat:
            given = f"--config {shown.config}" if shown.config else "--config CONFIG"
            yield f"```bash\nl0prune compress --plugin {run.plugin} {given}\n```"
        else:
            yield "It was pruned in a training loop of its own."
        versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
        yield f"Seed {report['seed']}; {versions}."
    if not facts.license:
        yield f"No licence is stated here. That of the network it was made from applies ({_LICENCES})."


def _sizes(report: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    before, after = report["params_before"], report["params_after"]
    yield "parameters", f"{before:,}", f"{after:,}", f"{before / max(1, after):.2f} times fewer"
    before, after = report["macs_before"], report["macs_after"]
    if before and after:
        name = f"multiply-accumulates per {report['macs_per']}"
        yield name, quantity(before), quantity(after), f"{before / after:.2f} times fewer"
    if report.get("speedup"):
        times = (f"{report[f'latency_{moment}_ms']:.1f} ms" for moment in ("before", "after"))
        yield "latency, measured at the cut", *times, f"{report['speedup']:.2f} times faster"


def _speeds(run: RunFacts) -> list[Sequence[str]]:
    rows = []
    for row in (run.bench or {}).get("rows", ()):
        ratio = row.get("speedup")
        faster = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        named = (str(row.get(key, "")) for key in ("model", "load", "dtype", "backend", "threads"))
        rows.append((*named, f"{row['latency_ms']:.2f} ms", faster))
    return rows


def _table(headings: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
