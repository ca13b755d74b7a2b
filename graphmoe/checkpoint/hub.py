"""Experts on a model hub: the only place that speaks to ``huggingface_hub``.

A hub is a stranger's disk. What comes from it is what a zip archive may bring, no more: names are
checked before anything is asked for, a manifest is verified before the weights it promises are
downloaded, all files are of one commit, and every one is verified again when it is added.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import graphmoe
from graphmoe.checkpoint import sharing, store
from graphmoe.checkpoint.card import CARD
from graphmoe.checkpoint.files import make_folder
from graphmoe.checkpoint.manifest import is_expert_name
from graphmoe.checkpoint.sealed import MAX_JSON_BYTES
from graphmoe.errors import (
    ConfigError,
    GraphMoEError,
    MissingDataError,
    MissingExtraError,
    VerificationError,
    unknown_name,
)

if TYPE_CHECKING:
    from graphmoe.checkpoint.bank import ExpertBank

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may do this"


def push(
    bank: ExpertBank,
    repo_id: str,
    names: Sequence[str] | None = None,
    *,
    licence: str | None = None,
    intended_use: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Send experts to a repository in one commit; see :meth:`ExpertBank.push_to_hub`."""
    hub = _library()
    api = _api(hub, token, endpoint)
    with sharing.temporary_folder() as folder, sharing.shown_as(folder / "bank", repo_id):
        said: dict[str, Any] = {"licence": licence, "intended_use": intended_use}
        sharing.write_shared(bank, folder / "bank", names, **said, source=repo_id)
        with _hub_errors(hub, repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            remote = api.model_info(repo_id, revision=revision, files_metadata=True)
            sent = store.expert_names(folder / "bank")
            fetch = _Fetch(api, repo_id, remote, folder / "cache", folder / "bank")
            # Experts that are there already belong into the index and onto the card.
            for name in fetch.experts():
                if name not in sent:
                    fetch.manifest(name)
            if CARD in fetch.sizes:
                fetch.file(CARD, MAX_JSON_BYTES)  # a person's own page is left as it is
            store.rebuild_index(folder / "bank")
            files = [f"{name}/{file}" for name in sent for file in (store.MANIFEST, store.WEIGHTS)]
            if sharing.write_card(folder / "bank", repo_id):
                files.append(CARD)
            operations = [
                hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=folder / "bank" / file)
                for file in [*files, store.INDEX]
            ]
            commit = api.create_commit(
                repo_id,
                operations,
                commit_message=message or f"Add {', '.join(sent)}"[:200],
                revision=revision,
            )
    return str(commit.commit_url)


def pull(
    bank: ExpertBank,
    repo_id: str,
    names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> tuple[str, ...]:
    """Add experts of a repository to ``bank``; see :meth:`ExpertBank.from_pretrained`."""
    hub = _library()
    api = _api(hub, token, endpoint)
    with sharing.temporary_folder() as folder, sharing.shown_as(folder, repo_id):
        with _hub_errors(hub, repo_id):
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
            fetch = _Fetch(api, repo_id, info, cache_dir, folder)
            found = fetch.experts()
            if not found:
                raise MissingDataError(f"{repo_id}: no experts in it")
            for name in names or ():
                if name not in found:
                    raise ConfigError(f"{repo_id}: {unknown_name('expert', name, found)}")
            wanted = found if names is None else names
            taken = [name for name in wanted if name in bank]
            if taken and not overwrite:
                raise ConfigError(f"the bank already has {taken}: remove or overwrite them")
            for name in wanted:
                size = fetch.manifest(name)
                fetch.file(f"{name}/{store.WEIGHTS}", size)
            if names is None and store.INDEX in fetch.sizes:
                fetch.file(store.INDEX, MAX_JSON_BYTES)
        return sharing.take_experts(bank, folder, names, overwrite=overwrite)


class _Fetch:
    """Files of one commit, each copied from the hub's cache to the folder that becomes a bank."""

    def __init__(
        self,
        api: Any,
        repo_id: str,
        info: Any,
        cache_dir: str | os.PathLike[str] | None,
        folder: Path,
    ) -> None:
        self._api, self._repo_id, self._folder = api, repo_id, folder
        self._commit, self._cache = info.sha, cache_dir
        self.sizes = {file.rfilename: file.size for file in info.siblings or ()}

    def experts(self) -> list[str]:
        """Names of the experts in the repository, sorted."""
        parts = (name.split("/") for name in self.sizes)
        found = {part[0] for part in parts if len(part) == 2 and part[1] == store.MANIFEST}
        return sorted(name for name in found if is_expert_name(name))

    def manifest(self, name: str) -> int:
        """Fetch and verify the manifest of ``name``; how many bytes its weights have."""
        self.file(f"{name}/{store.MANIFEST}", MAX_JSON_BYTES)
        return store.read_manifest(self._folder, name).files[store.WEIGHTS].size

    def file(self, name: str, limit: int) -> None:
        """Fetch ``name``, of at most ``limit`` bytes by what the hub says of it."""
        if name not in self.sizes:
            raise VerificationError(f"{self._repo_id}/{name}: the file is missing")
        size = self.sizes[name]
        if size is not None and size > limit:
            raise VerificationError(
                f"{self._repo_id}/{name}: expected at most {limit} bytes, got {size}"
            )
        found = self._api.hf_hub_download(
            self._repo_id, name, revision=self._commit, cache_dir=self._cache
        )
        target = self._folder / name
        make_folder(target.parent)
        shutil.copyfile(found, target)  # the cache holds links, which a bank must not


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError.for_extra("huggingface_hub", "hub") from None
    return huggingface_hub


def _api(hub: ModuleType, token: str | None, endpoint: str | None) -> Any:
    return hub.HfApi(
        endpoint=endpoint or os.environ.get("HF_ENDPOINT") or None,
        token=token,
        library_name="graphmoe",
        library_version=graphmoe.__version__,
    )


@contextmanager
def _hub_errors(hub: ModuleType, repo_id: str) -> Iterator[None]:
    """Turn what the library raises into one line that says what to do about it."""
    known = hub.utils
    try:
        yield
    except GraphMoEError:
        raise
    except known.HFValidationError as error:
        raise ConfigError(f"{repo_id!r} cannot name a repository: {error}") from None
    except known.GatedRepoError:
        raise GraphMoEError(f"{repo_id}: its owner gives access on request; {LOG_IN}") from None
    except known.RepositoryNotFoundError:
        raise MissingDataError(f"no repository {repo_id}, or it is private; {LOG_IN}") from None
    except known.RevisionNotFoundError:
        raise MissingDataError(f"{repo_id} has no such revision") from None
    except known.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise GraphMoEError(f"{repo_id}: the hub refuses this; {LOG_IN}") from None
        raise GraphMoEError(f"{repo_id}: the hub answers with status {status}") from error
    except Exception as error:
        # The HTTP library below has changed with versions; its errors have no common base.
        if type(error).__module__.split(".")[0] in _NETWORK or isinstance(error, ConnectionError):
            line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise GraphMoEError(f"{repo_id}: the hub cannot be reached: {line}") from error
        raise


_NETWORK = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
