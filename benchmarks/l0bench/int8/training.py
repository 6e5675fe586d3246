"""The further stage from one checkpoint, with and without rounding."""

import copy
from dataclasses import replace

from l0bench.int8.files import Student
from l0prune.training import Stage


def further(student: Student, steps: int, fake_int8: str) -> Student:
    """Train the further stage for some steps, all from the same weights, batches and draws.

    Args:
        student: At the beginning of that stage; it is left as it is.
        steps: How many.
        fake_int8: As `further.fake_int8`.
    """
    trained = replace(student, objective=copy.deepcopy(student.objective))
    config = replace(student.config.further, steps=steps, warmup_steps=min(10, steps), fake_int8=fake_int8)
    stage = Stage("further", trained.objective, config, precision=student.config.precision, seed=student.config.seed)
    stage.objective.load_state_dict(student.state["objective"])
    stage.run(iter(student.batches(student.config.joint.steps)), log_every=steps, on_record=lambda record: None)
    trained.objective.eval()
    return trained
