"""Experts leave a bank and join another: as a folder, as one zip, or on the way to a hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphmoe.checkpoint import archive, store
from graphmoe.checkpoint.card import CARD, MARK, check_licence, model_card
from graphmoe.checkpoint.files import (
    make_folder,
    new_folder,
    storage_errors,
    sync_folder,
    write_bytes,
)
from graphmoe.checkpoint.manifest import ExpertManifest
from graphmoe.errors import ConfigError, MissingDataError, VerificationError, unknown_name
from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from graphmoe.checkpoint.bank import ExpertBank

ZIP = ".zip"


def export_experts(
    bank: ExpertBank,
    path: PathLike,
    names: Sequence[str] | None = None,
    *,
    licence: str | None = None,
    intended_use: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write experts of ``bank`` to ``path``; see :meth:`ExpertBank.export`."""
    target = Path(path)
    said: dict[str, Any] = {"licence": licence, "intended_use": intended_use}
    if target.suffix.lower() == ZIP:
        if (target.exists() or target.is_symlink()) and not (overwrite and target.is_file()):
            raise ConfigError(f"{target} exists: choose another name or ask to overwrite it")
        with temporary_folder(beside=target) as folder:
            files = write_shared(bank, folder / "bank", names, **said)
            archive.pack(folder / "bank", folder / "zip", files)
            with storage_errors(target, "write"):
                _flush(folder / "zip")
                os.replace(folder / "zip", target)
                sync_folder(target.parent)
    elif overwrite and (target / store.INDEX).is_file():
        write_shared(bank, target, names, **said, overwrite=True)
    elif not target.exists() or (target.is_dir() and not any(target.iterdir())):
        make_folder(target.absolute().parent)
        with new_folder(target.absolute()) as folder:
            write_shared(bank, folder, names, **said)
            shutil.rmtree(folder / ".locks", ignore_errors=True)
    else:
        what = "and is no bank" if not (target / store.INDEX).is_file() else "as a bank"
        raise ConfigError(f"{target} exists {what}: choose another name or ask to overwrite a bank")
    return target


def import_experts(
    bank: ExpertBank,
    source: PathLike,
    names: Sequence[str] | None = None,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Add experts from a folder or zip to ``bank``; see :meth:`ExpertBank.import_from`."""
    found = Path(source)
    if (found / store.MANIFEST).is_file():
        return (bank.adopt(found, name, overwrite=overwrite),)
    if found.is_dir():
        return take_experts(bank, found, names, name=name, overwrite=overwrite)
    if not found.exists():
        raise MissingDataError(f"no folder or zip archive of experts at {found}")
    with temporary_folder() as folder, shown_as(folder, str(found)):
        archive.unpack(found, folder, names)
        return take_experts(bank, folder, names, name=name, overwrite=overwrite)


def take_experts(
    bank: ExpertBank,
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Verify experts in ``folder``, all of them before the first is added, and add them."""
    present = store.expert_names(folder)
    wanted = tuple(dict.fromkeys(present if names is None else names))
    for each in wanted:
        if each not in present:
            raise ConfigError(f"{folder}: {unknown_name('expert', each, present)}")
    if not wanted:
        raise VerificationError(f"{folder}: no experts in it; expected NAME/{store.MANIFEST}")
    if name is not None and len(wanted) > 1:
        raise ConfigError(f"one name {name!r} for {len(wanted)} experts: choose one of {wanted}")
    taken = [each for each in ([name] if name else wanted) if each in bank]
    if taken and not overwrite:
        raise ConfigError(
            f"the bank already has {', '.join(map(repr, taken))}: remove or overwrite them"
        )
    faults = []
    for each in wanted:  # one at a time: a hundred experts need not be in memory together
        try:
            type(bank).load(folder, verify=True, names=[each])
        except VerificationError as error:
            faults += str(error).splitlines()
    if faults:
        raise VerificationError("\n".join(dict.fromkeys(faults)))
    return tuple(bank.adopt(folder / each, name, overwrite=overwrite) for each in wanted)


def write_shared(
    bank: ExpertBank,
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    licence: str | None = None,
    intended_use: str | None = None,
    overwrite: bool = False,
    source: str = "FOLDER_OR_ZIP",
) -> list[str]:
    """Write experts of ``bank``, an index and the model card to ``folder``.

    Returns:
        The files that were written, relative to ``folder``.
    """
    wanted = tuple(dict.fromkeys(bank.names if names is None else names))
    if not wanted:
        raise ConfigError("no experts to share: the bank is empty, or no name was given")
    said = {"licence": licence and check_licence(licence), "intended_use": intended_use}
    for name in wanted:
        if name.casefold() in (CARD.casefold(), store.INDEX):
            raise ConfigError(f"an expert named {name!r} cannot be shared: a file has that name")
        manifest, tensors = _whole(bank, name)
        # What an expert already says of itself stays: its makers decided about it.
        new = {key: value for key, value in said.items() if value and not getattr(manifest, key)}
        store.write_expert(folder, manifest.model_copy(update=new), tensors, overwrite)
    files = [f"{name}/{file}" for name in wanted for file in (store.MANIFEST, store.WEIGHTS)]
    card = write_card(folder, source)
    return [*files, store.INDEX, *([CARD] if card else [])]


def _whole(bank: ExpertBank, name: str) -> tuple[ExpertManifest, dict[str, Tensor]]:
    """Manifest and tensors of ``name``, from the disk and verified where it is there.

    A new hash is about to be written: damage must not get one that makes it look whole.
    """
    manifest = bank.manifest(name)
    if bank.path is None:
        return manifest, bank.tensors(name)
    return store.read_expert(bank.path, name, verify=True)


def write_card(folder: Path, source: str = "FOLDER_OR_ZIP") -> bool:
    """Write the model card of all experts in ``folder``, unless a person has written one there."""
    path = folder / CARD
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    manifests = [store.read_manifest(folder, name) for name in store.expert_names(folder)]
    write_bytes(path, model_card(manifests, source).encode())
    return True


@contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards, on the disk of ``beside`` where one is given."""
    parent = None if beside is None else beside.absolute().parent
    if parent is not None:
        make_folder(parent)
    with storage_errors(parent or Path(tempfile.gettempdir()), "write"):
        made = tempfile.mkdtemp(prefix=".graphmoe-share-", dir=parent)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def shown_as(folder: Path, name: str) -> Iterator[None]:
    """Errors speak of ``name``, which the user knows, where ``folder`` is a temporary one."""
    try:
        yield
    except (VerificationError, ConfigError) as error:
        raise type(error)(str(error).replace(str(folder), name)) from None


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
