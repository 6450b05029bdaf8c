"""End to end: a real API server, real kubelets, real pods, real weights."""
