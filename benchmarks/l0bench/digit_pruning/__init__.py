"""Pruning small networks on scikit-learn's digits in one's own training loop: what benchmarks/digits.py runs."""
