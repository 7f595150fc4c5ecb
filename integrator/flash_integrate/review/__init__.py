"""The review hunk by hunk, and which hunks can be had without which."""
