"""Pruning the encoder of a real speech recogniser in one's own training loop: what benchmarks/whisper.py runs."""
