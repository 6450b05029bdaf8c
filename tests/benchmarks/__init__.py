"""Benchmarks: scripts with a report, never timed tests."""
