"""Notebooks: the cells of the JSON text, read as Python and edited in place."""
