"""The simulated engine.

`connection`, `sender`, `performer`, `turns` and `host` do input and output; the rest is pure.
"""
