"""A run as it goes: its folder, its checkpoints, its figures, its processes."""
