"""The hub at work: exchanges, relays, probes and use cases."""
