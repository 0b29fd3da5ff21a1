"""The protocols that Hive reads and writes, as pure code: bytes in, values out, without sockets and clocks."""
