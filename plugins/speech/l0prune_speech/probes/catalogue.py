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
