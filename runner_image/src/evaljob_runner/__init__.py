"""Evaluates one model on one shard of one dataset in one process: one partition of an EvalJob."""
