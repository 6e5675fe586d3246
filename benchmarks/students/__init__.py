"""The students that `ablations.py` compares: which there are, how each is made, scored, tabled and drawn.

- `entries`: the table of what can be compared.
- `making`: one student from an entry and a seed, by the method itself or from one of the beginnings below.
- `beginnings`: what a baseline gives for training; `narrow`, `one_shot`, `low_rank`: the baselines.
- `scoring`, `summary`, `figures`: probes, mean and deviation over seeds, pictures.
"""
