"""The parts of the simulated engine; connection, sender, performer, turns and host act, the rest is pure."""
