"""The tasks by name, for those who only ask what there is. Imports nothing heavy."""

from l0prune import EvaluationTask

TASKS = {
    "keyword": EvaluationTask(
        metric="accuracy",
        higher_is_better=True,
        description="keyword spotting: a linear layer on the mean over time",
    ),
    "speaker": EvaluationTask(
        metric="accuracy",
        higher_is_better=True,
        description="speaker identification: a linear layer on the mean over time, unseen sentences",
    ),
    "phone": EvaluationTask(
        metric="phone error rate",
        higher_is_better=False,
        description="phone recognition: a linear layer on every frame, CTC, read off greedily",
    ),
    "verification": EvaluationTask(
        metric="equal error rate",
        higher_is_better=False,
        description="speaker verification: cosine of embeddings learnt with additive-margin softmax, unseen speakers",
    ),
}

HEAD_TASKS = {
    "asr": EvaluationTask(
        metric="word error rate",
        higher_is_better=False,
        description="recognition by a network's own CTC head or decoder, greedily",
    ),
    "classify": EvaluationTask(
        metric="accuracy",
        higher_is_better=True,
        description="classes by a network's own head",
    ),
    "x-vector": EvaluationTask(
        metric="equal error rate",
        higher_is_better=False,
        description="speaker verification: cosine of a network's own x-vectors, all pairs of clips",
    ),
    "frames": EvaluationTask(
        metric="frame error rate",
        higher_is_better=False,
        description="classes of frames by a network's own head",
    ),
}
"""Those that need no probe: a network's own head is scored."""
