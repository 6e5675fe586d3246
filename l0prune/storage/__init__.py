"""What is kept on disk: run directories, checkpoints, model files."""
