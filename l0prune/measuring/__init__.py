"""What networks cost: counted, and timed on the machine at hand."""
