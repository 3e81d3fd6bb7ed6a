"""Which models a session may use: those of the server's start, and those that it trained itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from diffinst.config import Config, ConfigError
from diffinst.inference.predictor import DiffusionInst
from diffinst.serve.cache import Cache
from diffinst.serve.refusal import Refused
from diffinst.serve.training import Trainings
from diffinst.weights.store import CONFIG_FILE, CheckpointError

MOST_TRAINED = 2  # models of sessions that are kept in memory


class Models:
    """Models by the names that clients use.

    Args:
        given: At the start; the first is the default one.
        trainings: Of the sessions.
        cache: Images that the models have encoded; they are forgotten with their model.
    """

    def __init__(
        self, given: Mapping[str, DiffusionInst], trainings: Trainings, cache: Cache
    ) -> None:
        self.given, self.trainings, self._cache = given, trainings, cache
        self._trained: OrderedDict[Path, DiffusionInst] = OrderedDict()  # those used last
        self._lock = threading.Lock()

    def name(self, session: str | None, name: str | None) -> str:
        """The name itself, if there is such a model; None: the first.

        Raises:
            Refused: No such model; lists them.
        """
        if name is None:
            return next(iter(self.given))
        if name not in self.given and name not in self.trainings.models(session):
            there = ", ".join([*self.given, *self.trainings.models(session)])
            raise Refused(422, f"model {name}: not served here; there is {there}")
        return name

    def get(self, session: str | None, name: str | None) -> DiffusionInst:
        """The model of this name; one that the session trained is loaded where it is not there.

        Raises:
            Refused: As in `name`; 410: it cannot be loaded any more.
        """
        name = self.name(session, name)
        if name in self.given:
            return self.given[name]
        folder = self._folder(session, name)
        with self._lock:
            if folder not in self._trained:
                device = next(iter(self.given.values())).device
                try:
                    self._trained[folder] = DiffusionInst.from_pretrained(folder, device)
                except CheckpointError as error:
                    raise _unreadable(name) from error
            self._trained.move_to_end(folder)
            while len(self._trained) > MOST_TRAINED:
                self._forget(self._trained.popitem(last=False)[1])
            return self._trained[folder]

    def remove(self, session: str | None, name: str) -> None:
        """Remove a model that the session trained; what was found with it stays.

        Raises:
            Refused: 404: no such model; 403: it is one of the server's start.
        """
        if name in self.given:
            raise Refused(403, f"model {name} came with the server; only trained ones are removed")
        folder = self._folder(session, name)
        with self._lock:
            gone = folder.with_name(f"{folder.name}-removed")
            with contextlib.suppress(FileNotFoundError):  # another request was quicker
                os.replace(folder, gone)  # at once: nobody sees a half of it
            shutil.rmtree(gone, ignore_errors=True)
            if folder in self._trained:
                self._forget(self._trained.pop(folder))

    def _folder(self, session: str | None, name: str) -> Path:
        folder = self.trainings.models(session).get(name)
        if folder is None:
            raise Refused(404, f"model {name}: this session has no such model")
        return folder

    def _forget(self, model: DiffusionInst) -> None:
        """Drop what a model encoded: it would keep the model in memory."""
        self._cache.forget(lambda _, encoded: encoded.runner.network is model.network)

    def config(self, session: str | None, name: str) -> Config:
        """That of one model, which is not loaded for it.

        Raises:
            Refused: 404: no such model; 410: it cannot be read any more.
        """
        if name in self.given:
            return self.given[name].config
        try:
            return Config.from_file(self._folder(session, name) / CONFIG_FILE)
        except ConfigError as error:
            raise _unreadable(name) from error

    def configs(self, session: str | None) -> dict[str, Config]:
        """Those of all that a session may choose from; what cannot be read is left out."""
        found = {}
        for name in [*self.given, *self.trainings.models(session)]:
            with contextlib.suppress(Refused):
                found[name] = self.config(session, name)
        return found

    def classes(self, session: str | None, name: str) -> tuple[str, ...] | None:
        """The classes of a model; None: it is not served (any more)."""
        if name in self.given:
            return self.given[name].class_names
        own = {one.asked.name: one.asked.classes for one in self.trainings.of(session)}
        return own.get(name)


def _unreadable(name: str) -> Refused:
    return Refused(410, f"model {name} cannot be read any more; take another")
