"""Attention written by hand: read by its data flow, rewritten into a fused call, and proved."""
