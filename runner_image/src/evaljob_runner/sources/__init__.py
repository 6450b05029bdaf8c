"""Where models and data come from: a URI becomes files, and a file of data becomes rows."""
