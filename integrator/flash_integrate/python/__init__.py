"""A Python file as bytes, text and tree; what is asked of its syntax; LibCST's rewriting of it."""
