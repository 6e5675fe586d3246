"""The speech plugin of l0prune."""
