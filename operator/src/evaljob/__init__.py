"""evaljob: one isolated Kubernetes Job per (model, dataset), one summary. The core imports pydantic only."""

__version__ = "0.1.0"
