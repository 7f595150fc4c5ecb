"""From a call to its plan: which route, planned once for each kind of call, and which layer
called."""
