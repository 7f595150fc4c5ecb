"""Codemods: a room for each style of script, with what the codemods of that style know. A module is
a codemod by having what `flash_integrate.planning.codemod` says, and registered by being there."""
