"""Training with gates: objective, stages, records, compaction."""
