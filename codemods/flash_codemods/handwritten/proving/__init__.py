"""Both versions of a function's attention on random arrays, from the function's own source."""
