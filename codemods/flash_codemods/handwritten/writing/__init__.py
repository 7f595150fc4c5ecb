"""The rewrite of one attention: the call, what it is given, and what goes."""
