"""How much each unit matters, by its weights or on batches."""
