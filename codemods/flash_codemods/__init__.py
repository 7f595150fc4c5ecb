"""Codemods, one file each and registered by being there. `flash_integrate.codemod` says what one
has to define."""
