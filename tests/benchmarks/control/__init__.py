"""What the control side costs: requests, seconds, memory, beside a raw loop and the obvious alternative."""
