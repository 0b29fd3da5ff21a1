"""A listing is an event when its models have changed, and no event when only times or order have."""

from __future__ import annotations

from dataclasses import replace

from hive.fleet.engines import Engine
from hive.fleet.known import LoadedModel, Model
from hive.hub.event_log import EventLog, Position
from hive.hub.events import EngineListing
from hive.hub.listing_notes import NAMED, ListingNotes

TINY = Model("tiny:latest", "tiny", "d1", 1, "2026-01-01T00:00:00Z", b"{}", b"{}")
OTHER = replace(TINY, key="other:latest", id="other", digest="d2")


class Notebook:
    """One engine and what was noted of it."""

    def __init__(self) -> None:
        self.engine = Engine("desk", "http://desk", id="ollama")
        self.events = EventLog(epoch="ab")
        self.notes = ListingNotes(self.events)

    def look(self, *models: Model, loaded: tuple[LoadedModel, ...] = ()) -> list[EngineListing]:
        """Let the engine have these models; return what was noted of that."""
        before = self.events.position
        self.engine.known.models = {model.key: model for model in models}
        self.engine.known.loaded = {model.key: model for model in loaded}
        self.notes.note(self.engine)
        found = self.events.since(Position("ab", before.number))
        assert isinstance(found, list)
        assert all(event.subject == "desk/ollama" for event in found)
        return [event.details for event in found]


def test_the_first_listing_and_each_change_are_noted() -> None:
    book = Notebook()
    loaded = LoadedModel("tiny:latest", "", b"{}")
    assert book.look(TINY) == [EngineListing("desk", "ollama", 1, 0, ())]
    assert book.look(TINY, OTHER) == [EngineListing("desk", "ollama", 2, 0, ())]
    assert book.look(TINY, OTHER, loaded=(loaded,)) == [EngineListing("desk", "ollama", 2, 1, ("tiny:latest",))]
    assert book.look(replace(TINY, digest="d3"), OTHER, loaded=(loaded,)) != []
    assert book.look() == [EngineListing("desk", "ollama", 0, 0, ())]


def test_what_stays_the_same_is_not_noted() -> None:
    book = Notebook()
    loaded = LoadedModel("tiny:latest", "soon", b"{}")
    assert book.look(TINY, OTHER, loaded=(loaded,))
    assert book.look(TINY, OTHER, loaded=(loaded,)) == []
    assert book.look(OTHER, replace(TINY, modified_at="later"), loaded=(replace(loaded, expires_at="late"),)) == []


def test_the_names_in_an_event_are_bounded() -> None:
    book = Notebook()
    many = tuple(LoadedModel(f"m{number:03}", "", b"{}") for number in range(NAMED + 20))
    (noted,) = book.look(loaded=many)
    assert (noted.loaded, len(noted.names)) == (NAMED + 20, NAMED)


def test_an_engine_that_comes_again_is_noted_again() -> None:
    book = Notebook()
    assert book.look(TINY)
    book.notes.forget(book.engine)
    assert book.look(TINY)
