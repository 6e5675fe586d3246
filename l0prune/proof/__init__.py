"""Whether a cut changes anything: gated against pruned outputs, group by group."""
