"""Runs as a page for people and as figures for programs. Knows nothing of any plugin's networks or data."""
