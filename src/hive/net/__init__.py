"""Sockets: the server that clients speak to, and the connections to engines."""
