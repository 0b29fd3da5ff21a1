"""Hive: one API over scattered machines that run inference engines."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hive-hub")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

OLLAMA_API_VERSION = "0.33.0"
"""The version of the Ollama API that the hub speaks (`/api/version`). Clients enable features by it."""
