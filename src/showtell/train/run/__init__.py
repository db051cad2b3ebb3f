"""A training run: its folder, checkpoints, log, display and processes."""
