"""A real model and real data sets for the quickstart, made from ordinary packages."""
