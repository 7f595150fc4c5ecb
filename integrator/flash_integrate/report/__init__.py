"""The reports of a run: for a terminal, as JSON, as SARIF for code scanning, as Markdown for a
pull request."""
