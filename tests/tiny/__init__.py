"""A language model of 0.9 million parameters and the small data sets it is tested on."""
