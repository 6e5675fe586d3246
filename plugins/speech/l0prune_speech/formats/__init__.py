"""Checkpoint formats: one file each, with a from_ function, a to_ function, or both, around one `Checkpoint`."""
