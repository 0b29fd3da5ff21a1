"""The agent of a node: dials out to the hub, says what its engines have, and carries the hub's exchanges to them."""
