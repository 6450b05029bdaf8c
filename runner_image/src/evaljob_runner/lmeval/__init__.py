"""Partitions whose task lm-eval runs itself: its samples become our log, its numbers are computed again by us.

Only `harness` imports lm-eval, which not every image holds.
"""
