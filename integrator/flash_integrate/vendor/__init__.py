"""What goes with the patched scripts where it is asked for: a copy of the runtime, the entry in
the requirements."""
