"""Nothing of pruning: files, tables, text, signals, modules."""
