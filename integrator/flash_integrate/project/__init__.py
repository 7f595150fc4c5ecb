"""The files of a repo: which there are, what configures and packages them, how they import
each other."""
