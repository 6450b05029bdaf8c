"""How fast the runner is beside the engine it drives, and beside lm-eval: `make bench-runner`."""
