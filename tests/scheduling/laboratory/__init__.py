"""A whole fleet in virtual time: the real scheduler, health and failure code over simulated engines and networks."""
