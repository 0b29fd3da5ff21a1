"""Bytes in, values out: HTTP messages without sockets or clocks."""
