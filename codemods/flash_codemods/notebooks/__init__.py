"""Notebooks, judged as the script that their code cells make."""
