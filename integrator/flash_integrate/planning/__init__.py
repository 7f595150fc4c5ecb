"""From a file to a decision: what codemods are, which one edits the file, and what comes of it."""
