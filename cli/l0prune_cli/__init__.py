"""The command line of l0prune."""
