"""Runs on disk while they go on, so that a process that is killed loses one chunk at most."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from walras.calibrate.errors import CalibrationError
from walras.calibrate.writing import write_whole

_IDENTITY = "identity.json"
type Arrays = Mapping[str, np.ndarray]


class Restored(NamedTuple):
    """What a folder holds: the number of chunks written, the sampler's state after them, and each chunk's arrays by name."""

    chunks: int
    state: Any
    arrays: list[dict[str, np.ndarray]]


class Checkpoints:
    """A folder with one file for each chunk of a run: its draws, and the state from which the next chunk follows.

    `identity`: plain data that say which run this is (problem, sampler, key, versions). Unless `resume`, the folder must hold
    no chunks. Raises `CalibrationError` when it does, when it holds another run, or cannot be written.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], resume: bool = False):
        self.folder, self.identity, self.resume = Path(folder), dict(identity), resume
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CalibrationError(f"{self.folder} cannot be made ({error.strerror}): choose another folder") from error
        if self._files() and not resume:
            raise CalibrationError(f"{self.folder} holds a run that was begun: resume it, or choose another folder")
        if (self.folder / _IDENTITY).exists() and resume:
            self._require_same()
        else:
            write_whole(self.folder / _IDENTITY, json.dumps(self.identity, indent=1, sort_keys=True) + "\n")

    def part(self, name: str) -> "Checkpoints":
        """The checkpoints of a part of the run, such as the chains of one process, in a folder inside this one."""
        return Checkpoints(self.folder / name, {**self.identity, "part": name}, self.resume)

    def write(self, chunk: int, state, arrays: Arrays):
        """Write chunk number `chunk` (from 0) whole: its arrays, and the state after it (a pytree of arrays)."""
        leaves = {f"state/{i}": _array(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        content = {**leaves, **{f"chunk/{name}": np.asarray(array) for name, array in arrays.items()}}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **content)
        packed = file.getvalue()
        write_whole(self._path(chunk), hashlib.sha256(packed).digest() + packed)

    def read(self, like) -> Restored | None:
        """What was written, its state with the structure of `like`; None where there is nothing yet."""
        files = self._files()
        if not files:
            return None
        chunks = [self._content(self._path(chunk)) for chunk in range(len(files))]
        leaves, structure = jax.tree.flatten(like)
        try:
            if sum(name.startswith("state/") for name in chunks[-1]) != len(leaves):
                raise ValueError(f"its state has not {len(leaves)} parts")
            state = [_leaf(chunks[-1][f"state/{i}"], leaf) for i, leaf in enumerate(leaves)]
        except (KeyError, ValueError) as error:
            raise CalibrationError(
                f"{files[-1]} is of another version of walras ({error}): begin anew in another folder"
            ) from error
        arrays = [{name[6:]: array for name, array in chunk.items() if name.startswith("chunk/")} for chunk in chunks]
        return Restored(len(files), jax.tree.unflatten(structure, state), arrays)

    def _path(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:05}.npz"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("chunk-*.npz"))

    def _content(self, path: Path) -> dict[str, np.ndarray]:
        try:
            written = path.read_bytes()
            if hashlib.sha256(written[32:]).digest() != written[:32]:
                raise ValueError("its bytes are not those that were written")
            with np.load(io.BytesIO(written[32:]), allow_pickle=False) as content:
                return dict(content)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CalibrationError(
                f"checkpoint {path} cannot be read ({error}): remove it and those after it, and resume from the chunk before"
            ) from error

    def _require_same(self):
        path = self.folder / _IDENTITY
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CalibrationError(f"checkpoint {path} cannot be read ({error}): begin anew in another folder") from error
        changed = _differences(before, self.identity)
        if changed:
            raise CalibrationError(
                f"{self.folder} holds another run: its {changed[0]}: restore what it was begun with, or begin anew "
                "in another folder"
            )


def _differences(before: dict, ours: dict) -> list[str]:
    """What has changed, in the order of `ours`, entry by entry where both have entries."""
    found = []
    for name in [name for name in {**ours, **before} if before.get(name) != ours.get(name)]:
        was, now = before.get(name), ours.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            found += [f"{name} {entry}" for entry in _differences(was, now)]
        elif name in ("data", "digest"):
            found.append(f"{name} differs")
        else:
            found.append(f"{name} was {_short(was)} and is {_short(now)}")
    return found


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _array(leaf) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _leaf(array: np.ndarray, like):
    leaf = jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(like) else jnp.asarray(array)
    if leaf.shape != like.shape or leaf.dtype != like.dtype:
        raise ValueError(f"its state has {leaf.shape} {leaf.dtype} where {like.shape} {like.dtype} is wanted")
    return leaf
