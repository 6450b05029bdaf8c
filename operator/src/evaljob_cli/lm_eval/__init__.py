"""Tasks of lm-eval -> tasks of ours. Reads YAML only: nothing of lm-eval is imported, no function is executed."""
