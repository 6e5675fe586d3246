"""Labelled speech from the places where it is kept."""
