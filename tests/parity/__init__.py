"""The same tasks by lm-eval and by the runner, compared sample by sample: `make parity`."""
