"""What computes tokens. Backends know token ids and messages, never a task, a template or a dataset."""
