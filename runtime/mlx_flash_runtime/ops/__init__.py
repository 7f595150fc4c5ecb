"""MLX operations that several routes and rewritings share."""
