"""What the files of a repo are and hold, read from their bytes and syntax trees: what a plan is
made from."""
