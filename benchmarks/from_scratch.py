"""Is pruning worth it? A finished speech run against its own architecture, trained from random weights.

    python benchmarks/from_scratch.py runs/speech-quick

The yardstick has the run's student architecture, teacher, data, batches and optimizer, and as many optimizer steps as
both stages of the run together; only its weights begin at random. Both are measured on the run's held-out audio.
"""

import argparse
import json
from pathlib import Path

import torch

import l0prune
from l0prune.storage import read_description
from l0prune.training import Stage, evaluate

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run directory of the speech plugin")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 2e-3], help="the best one counts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/from-scratch.json")
    arguments = parser.parse_args()

    report = json.loads((arguments.run / "report.json").read_text())
    description = read_description(arguments.run)
    settings = l0prune.read_toml(arguments.run / "config.toml")
    plugin = l0prune.get_plugin(report["plugin"])
    config = l0prune.resolve(plugin, settings)
    plan = l0prune.RemovalPlan.from_json(description["plan"])
    steps = config.joint.steps + config.further.steps
    losses = {}
    for rate in arguments.learning_rates:
        torch.manual_seed(config.seed)
        task = plugin.prepare(l0prune.build(plugin.options, config.options), config)
        device = next(task.objective.parameters()).device
        student = l0prune.apply_plan(plugin.build(description["architecture"]), plan)
        task.objective.student = student.to(device)
        schedule = l0prune.StageConfig(steps=steps, learning_rate=rate, warmup_steps=steps // 10)
        stage = Stage("scratch", task.objective, schedule, precision=config.precision)
        stage.run(task.batches(0), log_every=50, on_record=_show)
        losses[f"{rate:g}"] = evaluate(task.objective, list(task.evaluation))[0]
    result = {
        "run": {key: report[key] for key in ("teacher", "recipe", "params_after", "seed", "versions")},
        "steps": steps,
        "distill_loss_after_removal": report["distill_loss_after_removal"],
        "distill_loss_final": report["distill_loss_final"],
        "distill_loss_from_scratch": min(losses.values()),
        "by_learning_rate": losses,
        "ratio": report["distill_loss_final"] / min(losses.values()),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _show(record: l0prune.Record) -> None:
    print(f"{record.step}/{record.steps}  loss {record.loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
