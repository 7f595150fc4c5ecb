"""Ways to start a program that has no command line of its own."""
