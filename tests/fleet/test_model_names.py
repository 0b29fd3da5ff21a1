"""Model names as Ollama reads them (types/model/name.go)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.model_names import canonical, is_valid, with_tag

EQUAL = [
    ("llama3", "llama3:latest"),
    ("LLaMA3:Latest", "llama3:latest"),
    ("library/llama3", "llama3:latest"),
    ("registry.ollama.ai/library/llama3", "llama3:latest"),
    ("Registry.Ollama.AI/Library/Llama3:8B", "llama3:8b"),
    ("registry.ollama.ai/alice/llama3", "alice/llama3:latest"),
    ("alice/llama3:q8", "alice/llama3:q8"),
    ("hf.co/Bartowski/Llama-3.2-GGUF:Q4_K_M", "hf.co/bartowski/llama-3.2-gguf:q4_k_m"),
    ("localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
    ("localhost:5000/ns/m:tag", "localhost:5000/ns/m:tag"),
    ("https://registry.ollama.ai/library/llama3", "llama3:latest"),
    ("http://localhost:5000/ns/m:tag", "localhost:5000/ns/m:tag"),
    ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/llama-3.1-8b-instruct:latest"),
]


@pytest.mark.parametrize(("name", "key"), EQUAL)
def test_the_names_of_one_model_have_one_key(name: str, key: str) -> None:
    assert canonical(name) == key


@pytest.mark.parametrize(("name", "key"), EQUAL)
def test_a_key_is_its_own_key(name: str, key: str) -> None:
    assert canonical(canonical(name)) == key


def test_different_models_have_different_keys() -> None:
    names = ["m", "m:1", "n", "alice/m", "bob/m", "hf.co/alice/m", "hf.co/alice/m:1", "localhost:1/alice/m"]
    assert len({canonical(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nope", "nope:latest"),
        ("Nope:Q4", "Nope:Q4"),
        ("a/nope", "a/nope:latest"),
        ("localhost:5000/a/nope", "localhost:5000/a/nope:latest"),
    ],
)
def test_some_errors_show_the_client_s_spelling_with_a_tag(name: str, shown: str) -> None:
    assert with_tag(name) == shown


VALID = [
    "m",
    "_m",
    "0",
    "llama3.2:1b-instruct_q4.0",
    "alice/llama3",
    "A_b-c/M.x:T.y",
    "hf.co/user/repo:Q4_K_M",
    "localhost:5000/ns/m:tag",
    "http://localhost:5000/ns/m",
    "x" * 80,
    "x" * 80 + ":" + "y" * 80,
    "n" * 80 + "/m",
    "h" * 350 + "/n/m",
]
INVALID = [
    "",
    "bad name!",
    "m n",
    " m",
    "m ",
    "m\n",
    "-m",
    ".m",
    "m:",
    "m:-t",
    ":t",
    "m:a:b",
    "/m",
    "m/",
    "a//m",
    "a/b/c/d",
    "../m",
    "a/../m",
    "m@sha256:00",
    "m\0",
    "m\\n",
    "mödel",
    "x" * 81,
    "m:" + "y" * 81,
    "n" * 81 + "/m",
    "h" * 351 + "/n/m",
    "host/n.s/m",
    "n.s/m",
    "localhost:5000/m",
    "x" * 5000,
]


@pytest.mark.parametrize("name", VALID)
def test_valid_names_are_those_that_ollama_could_have(name: str) -> None:
    assert is_valid(name)


@pytest.mark.parametrize("name", INVALID)
def test_other_names_are_not_valid(name: str) -> None:
    assert not is_valid(name)


PARTS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
NAMESPACES = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_-]{0,20}", fullmatch=True).filter(
    lambda name: name.casefold() != "library"
)


@given(PARTS, NAMESPACES, st.booleans())
@settings(deadline=None, max_examples=150)
def test_case_tag_and_the_default_registry_do_not_matter(model: str, namespace: str, is_tagged: bool) -> None:
    for name in (model, f"{namespace}/{model}"):
        full = name if is_tagged else f"{name}:latest"
        keys = {canonical(each) for each in (name, full, name.upper(), name.lower(), with_tag(name))}
        assert len(keys) == 1
        assert all(is_valid(each) for each in (name, full, name.upper()))
    assert canonical(f"registry.ollama.ai/{namespace}/{model}") == canonical(f"{namespace}/{model}")
    assert canonical(f"registry.ollama.ai/library/{model}") == canonical(f"library/{model}") == canonical(model)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=150)
def test_any_text_has_a_key_and_a_verdict(name: str) -> None:
    assert canonical(name) == canonical(name)
    assert is_valid(name) in (True, False)
    assert ":" in canonical(name)
