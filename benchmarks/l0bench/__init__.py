"""What the benchmarks share. A command is a script beside this folder, and no other module imports a command."""
