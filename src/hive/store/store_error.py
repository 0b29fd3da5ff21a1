"""The errors of the store."""


class StoreError(Exception):
    """One sentence for the operator: it names the directory or the file, and says what is wrong."""


class DirectoryInUseError(StoreError):
    """Another process holds the data directory."""


def error_fact(error: Exception) -> str:
    """Return the message of the database or the system, without the statement and its values."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(getattr(error, "orig", None) or type(error).__name__)
