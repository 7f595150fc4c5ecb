"""What the tool puts into a file: its text, how it is recognised, and the way back."""
