"""A run folder on disk: its file names, progress, checkpoints, report, card and publishing."""
