"""What reaches attention, and how: by a function that is called, an import, or written by hand."""
