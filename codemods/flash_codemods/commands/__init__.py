"""Commands of click and typer."""
