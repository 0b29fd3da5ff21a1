"""The management surface, `/hive/v1/*`: keys, nodes, models and requests, for admin keys."""
