"""Nodes, engines, models and what is known of their health: pure state."""
