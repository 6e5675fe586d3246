"""Other pruning libraries' ways in: each file is the only importer of its library."""
