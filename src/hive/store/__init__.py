"""The data that survives a restart: the data directory, its database and the records in it."""
