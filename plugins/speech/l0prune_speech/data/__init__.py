"""Audio in: clips, and batches of them."""
