"""The students that `ablations.py` compares: which there are, how each is made, scored, tabled and drawn.

- `entries`: the table of what can be compared.
- `making`: one student from an entry and a seed, by the method itself or as a baseline.
- `baselines`: how a baseline is trained and kept; `beginnings`, `narrow`, `one_shot`, `low_rank`: how each begins.
- `thinning`: less data.
- `scoring`, `summary`, `figures`: probes, mean and deviation over seeds, pictures.
"""
