"""The agent of a node: it dials the hub, reports the node's engines, and carries the hub's exchanges to them."""
