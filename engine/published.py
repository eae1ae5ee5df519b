"""Released models in, names under which governed SQL may use them out.

A published model lies beside the ledger in a folder of its own: the files of `Model.save` and
their hash. A name is given once and never changes its meaning.

Guarantee: what SQL gets of a model are constants that were released before; a model that is
damaged, or was not released with privacy, gives a refusal and no numbers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from planner.formula import Formula
from planner.refusal import Refused

if TYPE_CHECKING:
    from models.model import Model

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
FILES = ("model.json", "parameters.npy")
MODELS_MAX = 1_000


def models_folder(directory: Path, stem: str) -> Path:
    """Return where the published models of a ledger lie."""
    return directory / f"{stem}.models"


def publish(folder: Path, model: Model, name: str, *, insecure: bool) -> Path:
    """Store a model under a name; the same model under its own name again changes nothing.

    Raises Refused for a name that is taken or unfit, a model that SQL cannot express, and one
    that was not trained with privacy (unless `insecure`, on an engine for testing).
    """
    from models.arithmetic import formula_of

    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise Refused("model", f"a model's name is a word of small letters, got {name!r}",
                      "engine.publish(model, 'readmit')")
    if not (model.is_private or insecure):
        raise Refused("model", "the model was trained for testing, without privacy",
                      "a model of an engine with a ledger")
    formula_of(model, name)
    folder.mkdir(parents=True, exist_ok=True)
    place, draft = folder / name, folder / f".{name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    model.save(draft)
    (draft / "hash").write_text(_hash(draft))
    try:
        if place.exists():
            if (place / "hash").read_text() == (draft / "hash").read_text():
                return place
            raise Refused("model", f"another model is published as {name}", f"{name}_2")
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def published(folder: Path) -> tuple[Formula, ...]:
    """Return every published model, in the order of names; a damaged one says so when used."""
    if not folder.is_dir():
        return ()
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and NAME.fullmatch(p.name))
    return tuple(_read(folder / name, name) for name in names[:MODELS_MAX])


def _read(place: Path, name: str) -> Formula:
    from models.arithmetic import formula_of
    from models.model import Model

    try:
        if (place / "hash").read_text() != _hash(place):
            raise ValueError("another hash")
        return formula_of(Model.load(place), name)
    except Refused as problem:
        return Formula(name, fault=problem.message)
    except (OSError, ValueError):
        return Formula(name, fault="its files are not those that were published")


def _hash(place: Path) -> str:
    """Return the sha256 of a saved model's files."""
    parts = {file: sha256((place / file).read_bytes()).hexdigest() for file in FILES}
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
