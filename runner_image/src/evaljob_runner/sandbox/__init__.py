"""Programs that a model wrote, run where they can do nothing but compute.

Each execution is two processes that trust nobody: one runs the program, the other runs the tests and asks the
first over a pipe. docs/code-execution.md says what is guaranteed.
"""
