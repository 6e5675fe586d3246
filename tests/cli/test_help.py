"""Flags are a promise, and help is instant."""

import subprocess
import sys

import pytest
from typer.main import get_command

import l0prune

FLAGS = {
    "bench": [
        "--against",
        "--backends",
        "--batch-sizes",
        "--build",
        "--device",
        "--dtypes",
        "--json",
        "--lengths",
        "--plot",
        "--plugin",
        "--seconds",
        "--threads",
        "models",
    ],
    "compress": [
        "--compile",
        "--config",
        "--device",
        "--json",
        "--metric",
        "--out",
        "--plugin",
        "--print-config",
        "--recipe",
        "--resume",
        "--seed",
        "--set",
        "--steps",
        "--target",
        "--target-ms",
        "--target-sparsity",
        "--target-speedup",
    ],
    "cut": ["--build", "--json", "--out", "--polish", "--target", "run"],
    "doctor": ["--json"],
    "evaluate": [
        "--against",
        "--data",
        "--device",
        "--json",
        "--max-minutes",
        "--out",
        "--plot",
        "--plugin",
        "--seeds",
        "--shuffle-labels",
        "--task",
        "--tasks",
        "models",
    ],
    "export": ["--build", "--calibration", "--json", "--list", "--out", "--plugin", "--to", "source"],
    "groups": ["--config", "--json", "--plugin", "--recipe", "--set"],
    "pareto": ["--json", "--out", "--x", "--y", "runs"],
    "plugins": ["--json"],
    "report": ["--json", "--out", "runs"],
    "push": [
        "--base-model",
        "--dataset",
        "--json",
        "--language",
        "--license",
        "--message",
        "--pipeline-tag",
        "--print-card",
        "--private",
        "--revision",
        "--run",
        "repo",
        "source",
    ],
    "verify": ["--against", "--build", "--json", "--plugin", "--repeat", "sources"],
}

OF_SPEECH = [
    "--activation-checkpointing",
    "--batch-seconds",
    "--cache",
    "--cache-gigabytes",
    "--cosine-form",
    "--cosine-weight",
    "--crop-epochs",
    "--data",
    "--dropout",
    "--evaluation-seconds",
    "--every-layer",
    "--frozen",
    "--ignored",
    "--join-clips",
    "--join-rounds",
    "--kept-gigabytes",
    "--l1-weight",
    "--l2-weight",
    "--language",
    "--layer-clusters",
    "--layer-drop",
    "--layer-weight",
    "--layer-weighting",
    "--logit-weight",
    "--mask-frames",
    "--mask-probability",
    "--masked-share",
    "--matched-layers",
    "--max-seconds",
    "--min-seconds",
    "--mode",
    "--projections",
    "--short-clips",
    "--task",
    "--task-weight",
    "--teacher",
    "--temperature",
    "--train-tokens",
    "--unit-count",
    "--unit-layers",
    "--unit-seconds",
    "--units",
    "--window-seconds",
    "--workers",
]
HELP = """
import sys
from l0prune_cli.main import main
named = [[command, "--plugin", "speech"] for command in ("compress", "groups")]
others = ("bench", "compress", "cut", "doctor", "evaluate", "export", "groups", "pareto", "plugins", "push", "report")
others = (*others, "verify")
for command in ([], *([other] for other in others), *named):
    sys.argv = ["l0prune", *command, "--help"]
    try:
        main()
    except SystemExit as error:
        assert not error.code
print("heavy:", sorted({"torch", "torchaudio", "numpy", "rich.console", "matplotlib"} & set(sys.modules)))
"""


def flags_of(*arguments: str) -> dict[str, list[str]]:
    from l0prune_cli.main import make_app

    commands = get_command(make_app(arguments)).commands  # type: ignore[attr-defined]
    return {
        name: sorted(option for parameter in command.params for option in parameter.opts)
        for name, command in commands.items()
    }


def test_flags_are_frozen() -> None:
    assert flags_of() == FLAGS


@pytest.mark.parametrize("command", ["compress", "groups"])
def test_flags_of_the_speech_plugin_are_frozen(command) -> None:
    found = flags_of(command, "--plugin=speech")
    assert found == {**FLAGS, command: sorted([*FLAGS[command], *OF_SPEECH])}


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *help_text, last = done.stdout.splitlines()
    assert last == "heavy: []"
    for flags in (*FLAGS.values(), OF_SPEECH):
        for flag in flags:
            assert any(flag in line for line in help_text)


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "l0prune_cli", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "compress" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["compress", "--plugin", "speech", "--colour", "red"], "--colour"),
        (["compress"], "--plugin"),
        (["compress", "--plugin", "speech", "--target-sparsity", "much"], "--target-sparsity"),
        (["compress", "--plugin", "speech", "--seed", "1.5"], "--seed"),
        (["compress", "--plugin", "speech", "--config", "."], "--config"),
        (["compress", "--plugin", "speech", "--resume", "RUN"], "RUN"),
        (["bench"], "models"),
        (["evaluate", "embedded", "--seeds", "0"], "--seeds"),
        (["squeeze"], "squeeze"),
        (["--plugin", "speech"], "--plugin"),
        (["compress", "--plugin"], "--plugin"),
        (["compress", "--teacher", "x"], "--plugin NAME"),
        (["groups", "--plugin", "speech", "--teachr", "x"], "--teacher"),
        (["compress", "--plugin", "speech", "--set"], "--set"),
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(l0prune_call, arguments, word) -> None:
    l0prune_call(*arguments).refused(word, "; see l0prune", " --help")


@pytest.mark.parametrize("arguments", [[], ["compress"], ["bench"], ["groups", "--plugin", "speech"]])
def test_h_is_help(l0prune_call, arguments) -> None:
    assert l0prune_call(*arguments, "-h").succeeded().out == l0prune_call(*arguments, "--help").succeeded().out


def test_version(l0prune_call) -> None:
    assert l0prune_call("--version").succeeded().out == f"l0prune {l0prune.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("compress", "--plugin=speech"), ("groups", "--plugin=speech")])
def test_every_help_shows_defaults(arguments) -> None:
    """Of each flag that takes a value and need not be given."""
    from l0prune_cli.main import make_app

    for name, command in get_command(make_app(arguments)).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag and not parameter.required:
                shown = isinstance(parameter.show_default, str) or parameter.default is not None
                assert shown or "[default: " in parameter.help, (name, parameter.opts)


def test_defaults_in_help_are_those_of_the_recipe(l0prune_call) -> None:
    def line(flag: str, *more: str) -> str:
        """What help says of a flag, up to the next one."""
        shown = l0prune_call("compress", "--plugin", "speech", *more, "-h").succeeded().out
        return " ".join(shown.partition(f"  {flag} ")[2].partition("\n  --")[0].split())

    quick = l0prune.get_plugin("speech").recipes["quick"]
    assert f"[default: {quick['speech']['batch_seconds']:g}]" in line("--batch-seconds")
    assert f"[default: {quick['joint']['steps'] + quick['further']['steps']}]" in line("--steps")
    assert "[default: dphubert-base]" in line("--recipe", "--recipe", "dphubert-base")
    assert "[default: 0.75]" in line("--target-sparsity")
    assert "[default: conv,head,ffn]" in line("--units")


def test_a_shell_is_given_completions(l0prune_call, monkeypatch) -> None:
    monkeypatch.setenv("_L0PRUNE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "l0prune groups --plugin speech --min")
    monkeypatch.setenv("COMP_CWORD", "4")
    assert l0prune_call().succeeded().out.split() == ["--min-seconds"]
    monkeypatch.setenv("COMP_WORDS", "l0prune ex")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert l0prune_call().succeeded().out.split() == ["export"]


def test_without_arguments_help_is_shown(l0prune_call) -> None:
    assert l0prune_call().succeeded().out == l0prune_call("--help").out


def test_ctrl_c_ends_without_a_traceback(l0prune_call, monkeypatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("l0prune.plugin_names", interrupted, raising=False)
    outcome = l0prune_call("plugins")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "")
