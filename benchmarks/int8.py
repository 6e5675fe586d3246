"""A pruned student in int8: how small, how near its teacher, how fast, and where its time goes.

    l0prune compress --plugin speech --out runs/speech-quick
    python benchmarks/int8.py runs/speech-quick              # some minutes on two cores

From the checkpoint at the beginning of the further stage the student is trained anew: as ever, and with rounding
(`further.fake_int8`), the same steps, batches and draws. Each is exported in float32 and in int8, static and dynamic.
The loss is the mean over the matched layers of the L1 distance and
one minus the cosine, on the run's held-out clips, through the projections that were trained with the student.
Files run in onnxruntime in turns, so that changes of the machine meet all alike.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from l0bench.int8 import Student, further, hidden_states, open_student, profile, sessions, shares_of
from l0bench.provenance import where
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.deploy import find_calibration
from l0prune_speech.formats import from_encoder, to_onnx
from torch import Tensor
from torch.nn.functional import cosine_similarity

from l0prune.formats import FUSED_OPSET
from l0prune.measuring import interleave, parameters, speedup
from l0prune.quantisation import dynamic_int8, has_int8_instructions, static_int8

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SECONDS = 10
_SHOWN = 8
"""Operators of each profile in the table."""
_FASTER, _SMALLER = 2.0, 12.0
"""The goals."""

Heard = tuple[Tensor, Tensor, Sequence[Tensor]]
"""Waveforms (B, samples), lengths (B,), the teacher's hidden states, each (B, T, D)."""


def export(encoder: Any, folder: Path, name: str, calibration: list[dict[str, Any]]) -> dict[str, Path]:
    """Files of an encoder by form."""
    made = {form: folder / f"{name}-{form}.onnx" for form in ("float32", "float32, fused", "dynamic", "static")}
    checkpoint = from_encoder(encoder)
    to_onnx(checkpoint, made["float32"])
    to_onnx(checkpoint, made["float32, fused"], opset=FUSED_OPSET)
    dynamic_int8(made["float32, fused"], made["dynamic"])
    notes = static_int8(made["float32, fused"], made["static"], calibration)
    print(f"{name}: {'; '.join(notes)}", flush=True)
    return made


def loss_of(student: Student, path: Path, heard: Sequence[Heard]) -> float:
    """Mean over matched layers of L1 distance and one minus cosine, on the held-out clips."""
    objective, session = student.objective, sessions(path, torch.get_num_threads())
    total = amount = 0.0
    with torch.no_grad():
        for waveforms, lengths, theirs in heard:
            ours = hidden_states(session, waveforms, lengths)
            frames = ours.shape[1] * ours.shape[2]
            for layer in objective.layers:
                predicted = objective.projections["first" if layer == 0 else "others"](ours[layer])
                cosine = cosine_similarity(predicted, theirs[layer], dim=-1).mean()
                total += float((predicted - theirs[layer]).abs().mean() + 1 - cosine) * frames
                amount += frames
    return total / amount


def teacher_states(student: Student) -> list[Heard]:
    """What the teacher makes of the held-out clips."""
    found: list[Heard] = []
    with torch.no_grad():
        for waveforms in student.held_out:
            lengths = torch.full((len(waveforms),), waveforms.shape[1])
            found.append((waveforms, lengths, student.dense.hidden_states(waveforms, None, lengths)))
    return found


def times_of(files: Mapping[str, Path], waveforms: Tensor, seconds: float) -> dict[str, Any]:
    """Median milliseconds of each file, and how many times faster than the dense float32 and its own float32."""
    runs = {}
    for name, path in files.items():
        session = sessions(path, torch.get_num_threads(), fused_norms="plain norms" not in name)
        feeds = {"waveforms": waveforms.numpy(), "lengths": torch.tensor([waveforms.shape[1]]).numpy()}
        runs[name] = lambda session=session, feeds=feeds: session.run(["hidden_states"], feeds)
    times = interleave(runs, seconds=seconds)
    return {
        name: {
            "milliseconds": 1000 * timing.median,
            "spread": timing.spread,
            "times_dense": asdict(speedup(times["dense float32"], timing)),
            "times_own_float32": asdict(speedup(times["student float32"], timing)),
        }
        for name, timing in times.items()
    }


def main() -> None:
    """Train, export, compare, time, profile; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=100, help="of the further stage")
    parser.add_argument("--fake", nargs="*", default=["", "weights", "all"], help="values of further.fake_int8")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing")
    parser.add_argument("--out", type=Path, default=RESULTS / "int8.json")
    options = parser.parse_args()
    student = open_student(options.run)
    audio = find_calibration(str(options.run), ())
    feeds = [{"waveforms": c.numpy()[None], "lengths": torch.tensor([len(c)]).numpy()} for c in audio.clips]
    waveforms = torch.cat(list(audio.held_out))[None, : SECONDS * SAMPLE_RATE]
    dense_bytes, heard = 4 * parameters(student.dense), teacher_states(student)
    found: dict[str, Any] = {
        **where(torch.device("cpu")),
        "int8_instructions": has_int8_instructions(),
        "steps": options.steps,
        "dense_parameters": parameters(student.dense),
        "dense_bytes": dense_bytes,
        "students": [],
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        timed: dict[str, Path] = {}
        for fake in options.fake:
            trained = further(student, options.steps, fake)
            name = f"further.fake_int8 = {fake!r}"
            files = export(trained.objective.student, folder, f"student-{fake or 'none'}", feeds)
            for form in ("float32", "dynamic", "static"):
                size = files[form].stat().st_size
                row = {
                    "training": name,
                    "form": form,
                    "bytes": size,
                    "times_smaller": dense_bytes / size,
                    "loss": loss_of(trained, files[form], heard),
                }
                found["students"].append(row)
                print(row, flush=True)
            if not fake:
                timed = {
                    "student float32": files["float32"],
                    "student float32, one GELU": files["float32, fused"],
                    "student float32, one GELU, plain norms": files["float32, fused"],
                    "student int8 dynamic, plain norms": files["dynamic"],
                    "student int8 static, plain norms": files["static"],
                }
            elif fake == "all":
                timed |= {"student int8 static, plain norms, trained with rounding": files["static"]}
        dense = folder / "dense.onnx"
        to_onnx(from_encoder(student.dense), dense)  # pyright: ignore[reportArgumentType]
        timed = {"dense float32": dense, **timed}
        found["dense_file_bytes"] = dense.stat().st_size
        found["times"] = times_of(timed, waveforms, options.seconds)
        given = {"waveforms": waveforms.numpy(), "lengths": torch.tensor([waveforms.shape[1]]).numpy()}
        found["profiles"] = {
            name: [
                asdict(share)
                for share in shares_of(
                    *profile(path, given, threads=torch.get_num_threads(), fused_norms="plain norms" not in name)
                )
            ]
            for name, path in timed.items()
        }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = page(found)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def page(found: Mapping[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# A pruned student in int8",
        "",
        f"`python benchmarks/int8.py RUN`, commit {found['commit']}, {found['processor']}, "
        f"{found['threads']} thread(s), torch {found['versions']['torch']}; instructions for int8 products: "
        f"{'yes' if found['int8_instructions'] else 'no'}. The dense network has {found['dense_parameters']:,} "
        f"parameters, {found['dense_bytes'] / 1e6:.2f} MB in float32. Further stage: {found['steps']} steps.",
        "",
        "| training | form | MB on disk | times smaller than dense float32 | loss against the teacher |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['training']}` | {row['form']} | {row['bytes'] / 1e6:.2f} | {row['times_smaller']:.1f} "
        f"| {row['loss']:.4f} |"
        for row in found["students"]
    ]
    lines += [
        "",
        f"Time for {SECONDS} s of audio in onnxruntime, all in turns: median, and times faster with the 95 % interval.",
        "",
        "| file | ms | than dense float32 | than its own float32 |",
        "|---|---|---|---|",
    ]
    for name, row in found["times"].items():
        ratios = " | ".join(_interval(row[key]) for key in ("times_dense", "times_own_float32"))
        lines.append(f"| {name} | {row['milliseconds']:.1f} | {ratios} |")
    smallest = max(row["times_smaller"] for row in found["students"] if row["form"] != "float32")
    fastest = max(row["times_own_float32"]["median"] for name, row in found["times"].items() if "int8" in name)
    lines += [
        "",
        f"Goals: {_SMALLER:g} times smaller than dense float32: {_met(smallest, _SMALLER)} ({smallest:.1f}); int8 "
        f"{_FASTER:g} times faster than its own float32: {_met(fastest, _FASTER)} ({fastest:.2f}).",
        "",
        "Where the time goes, in milliseconds of onnxruntime's profiler (operator, calls):",
        "",
        "| file | sum | the largest |",
        "|---|---|---|",
    ]
    for name, shares in found["profiles"].items():
        total = sum(share["milliseconds"] for share in shares)
        largest = ", ".join(f"{s['operator']} {s['milliseconds']:.1f} ({s['calls']})" for s in shares[:_SHOWN])
        lines.append(f"| {name} | {total:.1f} | {largest} |")
    return "\n".join(lines) + "\n"


def _interval(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _met(value: float, goal: float) -> str:
    return "met" if value >= goal else "not met"


if __name__ == "__main__":
    main()
