"""Model names."""

from __future__ import annotations

import pytest

from hive.sim.names import full_name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama3", "llama3:latest"),
        ("llama3:8b", "llama3:8b"),
        ("library/llama3", "llama3:latest"),
        ("registry.ollama.ai/library/llama3", "llama3:latest"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("localhost:5000/ns/m:tag", "localhost:5000/ns/m:tag"),
        ("bad name!", None),
        ("", None),
        ("m:", None),
        ("a/b/c/d", None),
    ],
)
def test_reads_names(name: str, full: str | None) -> None:
    assert full_name(name) == full
