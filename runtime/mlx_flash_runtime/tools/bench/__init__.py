"""Measuring: attention by shape, whole workflows, a script with and without the patch, and how
results are shown."""
