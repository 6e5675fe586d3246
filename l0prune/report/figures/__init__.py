"""Pictures of runs: PNG files, and drawings inside the page."""
