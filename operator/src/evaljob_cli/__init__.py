"""evaljob on this machine: the same EvalJob file without a cluster."""
