"""`python -m l0prune_cli`."""

from l0prune_cli.main import main

main()
