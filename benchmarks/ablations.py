"""What the method, its parts and its defaults are worth, against baselines of the same budget.

    python benchmarks/ablations.py full random --seeds 0       # two students
    python benchmarks/ablations.py                             # all: the method, baselines, ablations, five sizes
    python benchmarks/ablations.py magnitude-sizes             # a baseline at the five sizes, too
    python benchmarks/ablations.py full terms                  # each distillation term added alone, and other layers
    python benchmarks/ablations.py --list

Every student has the same data, optimizer steps, seconds of audio a step, optimizer, peak learning rate and form of
schedule, and at most the parameters of its target. Baselines are made small at once and trained for all the steps.
Students are kept below `--runs`: what is there is not made again, and what was interrupted goes on. Each is scored by
`l0prune.evaluate`, beside the teacher, log-mel filterbanks and the teacher's network with random weights. Low-rank
students are counted and cost what their pairs of matrices do; they are kept multiplied out.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0bench.provenance import where
from l0bench.students.earlier import Earlier
from l0bench.students.entries import all_entries, chosen
from l0bench.students.figures import draw_methods, draw_sizes
from l0bench.students.making import Comparison, is_made, make
from l0bench.students.scoring import SCORES, Probes, kept, reference_place, references, scored, tasks_of
from l0bench.students.summary import aligned, cells, lead, markdown, reference_row, row, seed_row

import l0prune
from l0prune.support import write_json, write_text


def compare(
    comparison: Comparison,
    names: list[str],
    seeds: list[int],
    probes: Probes | None,
    *,
    earlier: Earlier | None = None,
    only_made: bool = False,
    note: Any = print,
) -> dict[str, Any]:
    """Make and score students; what is there already is taken as it is.

    Args:
        comparison: Settings and folder.
        names: Of entries and sets of them.
        seeds: Of training.
        probes: How students are scored; None for not at all.
        earlier: Results from which what is not in the folder is taken.
        only_made: Make and score nothing: take what is there.
        note: Told what is done.
    """
    config = comparison.config()
    entries = chosen(names, config)
    earlier = earlier or Earlier()
    teacher = config.options["teacher"]
    places = {name: reference_place(comparison.folder, name) for name in references(teacher)}

    def evaluation_of(model: str, place: Path) -> Mapping[str, Any] | None:
        if probes is None:
            return None
        return kept(place, probes) if only_made else scored(model, place, probes, note)

    # Scored here whatever the file holds: it tells which labelled data these are.
    own = evaluation_of(teacher, places[teacher])
    if own and earlier.tasks and tasks_of(own) != earlier.tasks:
        note("the earlier scores are of other labelled data or probes, and are left out")
        earlier = earlier.unscored()
    rows, told, held_against = [], dict(earlier.tasks) if probes else {}, []

    def evaluated(model: str, place: Path) -> Mapping[str, Any] | None:
        evaluation = evaluation_of(model, place)
        if evaluation and tasks_of(evaluation) != (told or tasks_of(evaluation)):
            hint = "remove them, or leave out --with"
            raise l0prune.RunError("scores are of other labelled data or probes", where=place, hint=hint)
        told.update(tasks_of(evaluation) if evaluation else {})
        return evaluation

    for name, place in places.items():
        if probes and name in earlier.references and not kept(place, probes):
            held_against.append(earlier.references[name])
        elif evaluation := evaluated(name, place):
            held_against.append(reference_row(name, evaluation))
    for entry in entries:
        students = []
        for seed in seeds:
            made = is_made(comparison, entry, seed)
            found = None if made else earlier.student(entry, seed)
            # One without scores is made again where they are asked for.
            if found and (found["scores"] or only_made or not probes):
                students.append(found)
            elif made or not only_made:
                facts = make(comparison, entry, seed, note)
                students.append(seed_row(facts, evaluated(facts["path"], comparison.place(entry, seed) / SCORES)))
        if students:
            rows.append(row(entry, comparison.config(entry).target_sparsity, students))
    return {
        "recipe": comparison.recipe,
        "settings": l0prune.describe(config),
        "target_sparsity": config.target_sparsity,
        "training_seeds": seeds,
        "probe_seeds": list(probes.seeds) if probes else [],
        "tasks": told,
        "references": held_against,
        "entries": rows,
        "full_is_ahead_by_deviations": leads(rows, told),
        **where(l0prune.pick_device(config.device)),
    }


def leads(rows: list[dict[str, Any]], tasks: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By how many standard deviations the full method is ahead of each other student of its size, by task."""
    full = next((r for r in rows if r["name"] == "full"), None)
    if full is None:
        return {}
    others = [r for r in rows if r is not full and r["target_sparsity"] == full["target_sparsity"]]
    return {r["name"]: ahead for r in others if (ahead := lead(full, r, tasks))}


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="entries or sets: all (default), baselines, ablations, sizes, ...")
    parser.add_argument("--seeds", default="0,1,2", help="of training")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="where students are kept")
    parser.add_argument("--out", type=Path, help="a JSON file to write; by default ablations.json among the runs")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--config", type=Path, help="a TOML file over the recipe")
    parser.add_argument("--cache", type=Path, help="where to keep the teacher's hidden states for other students")
    parser.add_argument("--cache-gigabytes", type=float, default=10.0)
    parser.add_argument("--tasks", default="", help="of l0prune evaluate; all by default")
    parser.add_argument("--labelled", action="append", default=[], help="labelled data; the embedded set by default")
    parser.add_argument("--probe-seeds", default="0,1,2")
    parser.add_argument("--no-probes", action="store_true", help="losses and sizes alone")
    earlier = "results of before: what they hold is not made again; scores of other labelled data are left out"
    parser.add_argument("--with", dest="earlier", type=Path, help=earlier)
    parser.add_argument("--only-made", action="store_true", help="make and score nothing: take what is there")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    arguments = parser.parse_args()
    try:
        settings = l0prune.read_toml(arguments.config) if arguments.config else {}
        comparison = Comparison(
            folder=arguments.runs,
            recipe=arguments.recipe,
            settings=settings,
            cache=arguments.cache,
            cache_gigabytes=arguments.cache_gigabytes,
        )
        if arguments.list:
            for entry in all_entries(comparison.config()).values():
                print(f"{entry.name:24} {entry.answers}")
            return 0
        probes = Probes(
            tasks=tuple(filter(None, arguments.tasks.split(","))),
            data=tuple(arguments.labelled),
            seeds=_numbers(arguments.probe_seeds),
            device=comparison.config().device,
        )
        earlier = Earlier.read(arguments.earlier, comparison, probes.seeds) if arguments.earlier else None
        results = compare(
            comparison,
            arguments.names or ["all"],
            list(_numbers(arguments.seeds)),
            None if arguments.no_probes else probes,
            earlier=earlier,
            only_made=arguments.only_made,
        )
    except KeyboardInterrupt:
        print("broken off: the same command goes on", file=sys.stderr)
        return 130
    except l0prune.L0PruneError as error:
        print(error, file=sys.stderr)
        return 2
    out = arguments.out or arguments.runs / "ablations.json"
    write_json(out, results)
    lines = cells(results["entries"], results["references"], results["tasks"])
    print(aligned(lines))
    write_text(out.with_suffix(".md"), markdown(lines))
    for name, tasks in results["full_is_ahead_by_deviations"].items():
        count = sum(deviations > 1 for deviations in tasks.values())
        print(f"full is ahead of {name} by more than a standard deviation on {count} of {len(tasks)} tasks")
    pictures = {draw_sizes: out.with_name(f"{out.stem}-sizes.png"), draw_methods: out.with_suffix(".png")}
    for draw, picture in pictures.items():
        if not draw(results, picture):
            # One of other students would stand beside these figures.
            picture.unlink(missing_ok=True)
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise l0prune.ConfigError("not a list of whole numbers", got=text, expected="0,1,2 say") from error


if __name__ == "__main__":
    sys.exit(main())
