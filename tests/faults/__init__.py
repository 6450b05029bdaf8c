"""The operator under faults: a real operator process, a real API server, and a proxy between them that lies."""
