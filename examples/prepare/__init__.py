"""Make the quickstart's data folder; each module turns one package into one form the runner reads."""
