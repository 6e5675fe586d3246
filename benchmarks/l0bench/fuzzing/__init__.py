"""Damaged and hostile files: samples, their changes, what reads them, and how that ends in a bounded child process."""
