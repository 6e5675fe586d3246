"""What batches tell about a network: who reads which units, and fitting the readers anew after a cut."""
