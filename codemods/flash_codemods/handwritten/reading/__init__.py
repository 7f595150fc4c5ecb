"""What a function holds: names, arrays, and the attention among them."""
