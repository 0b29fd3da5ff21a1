"""The models on the disk: found by any spelling, and the same in every engine."""

from __future__ import annotations

import pytest

from hive.sim.catalogue import Catalogue, make_model


def test_a_model_is_found_by_every_spelling_of_its_name() -> None:
    catalogue = Catalogue()
    model = catalogue.add("Tiny", 1.0)
    assert model is not None
    assert catalogue.find("tiny") is catalogue.find("TINY:latest") is model
    assert catalogue.find("tiny:8b") is None


def test_a_model_that_is_there_is_not_made_anew() -> None:
    catalogue = Catalogue()
    first = catalogue.add("tiny", 1.0)
    assert catalogue.add("TINY", 2.0) is first
    assert len(catalogue.models) == 1


@pytest.mark.parametrize("name", ["", "bad name", "m:"])
def test_what_is_no_name_is_no_model(name: str) -> None:
    catalogue = Catalogue()
    assert catalogue.add(name, 1.0) is None
    assert catalogue.find(name) is None


def test_engines_agree_about_a_model_and_models_differ() -> None:
    assert make_model("tiny:latest", 1.0) == make_model("tiny:latest", 1.0)
    assert make_model("tiny:latest", 1.0).digest != make_model("other:latest", 1.0).digest
    assert make_model("Tiny:latest", 1.0).digest == make_model("tiny:latest", 1.0).digest


@pytest.mark.parametrize(
    ("name", "talks", "embeds", "thinks"),
    [("tiny", True, False, False), ("nomic-embed", False, True, False), ("thinker", True, False, True)],
)
def test_a_name_says_what_the_model_can(name: str, talks: bool, embeds: bool, thinks: bool) -> None:
    model = make_model(name, 1.0)
    assert (model.can_talk, model.can_embed, model.can_think) == (talks, embeds, thinks)


def test_a_copy_has_another_name_and_the_same_digest() -> None:
    catalogue = Catalogue()
    source = catalogue.add("tiny", 1.0)
    assert source is not None
    catalogue.copy(source, "Other:latest")
    copy = catalogue.find("other")
    assert copy is not None
    assert (copy.name, copy.digest) == ("Other:latest", source.digest)


def test_a_model_that_is_removed_is_gone_and_its_copy_stays() -> None:
    catalogue = Catalogue()
    source = catalogue.add("tiny", 1.0)
    assert source is not None
    catalogue.copy(source, "other:latest")
    catalogue.remove(source)
    assert catalogue.find("tiny") is None
    assert catalogue.find("other") is not None


def test_the_newest_model_is_listed_first() -> None:
    catalogue = Catalogue()
    for name, modified in (("a", 2.0), ("b", 3.0), ("c", 1.0)):
        catalogue.add(name, modified)
    assert [model.name for model in catalogue.newest_first()] == ["b:latest", "a:latest", "c:latest"]
