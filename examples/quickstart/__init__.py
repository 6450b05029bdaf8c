"""`make quickstart`: from a fresh machine to a table of real scores."""
