"""What a bank can do with experts that others made, or that others shall have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphmoe.typing import PathLike

if TYPE_CHECKING:
    from typing_extensions import Self

    from graphmoe.checkpoint.bank import ExpertBank


class SharedExperts:
    """The part of :class:`~graphmoe.checkpoint.ExpertBank` that sends experts and takes them."""

    def export(
        self,
        path: PathLike,
        names: Sequence[str] | None = None,
        *,
        licence: str | None = None,
        intended_use: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write experts with a model card to a folder, itself a bank, or to one zip archive.

        Args:
            path: A new folder, or a file that ends in ``.zip``.
            names: Which experts; ``None``: all.
            licence: Under which they are shared (``"mit"``); kept in manifests that name none.
            intended_use: What for, one paragraph; likewise.
            overwrite: Replace an archive, or experts of the same names in a bank.

        Raises:
            ConfigError: An unknown name, or something is at ``path`` already.
        """
        from graphmoe.checkpoint import sharing

        said = {"licence": licence, "intended_use": intended_use}
        return sharing.export_experts(
            cast("ExpertBank", self), path, names, **said, overwrite=overwrite
        )

    def import_from(
        self,
        source: PathLike,
        names: Sequence[str] | None = None,
        *,
        name: str | None = None,
        overwrite: bool = False,
    ) -> tuple[str, ...]:
        """Add experts that :meth:`export` wrote; all are verified before the first is added.

        Args:
            source: A bank's folder, an expert's, or a zip archive, by whomever it was made.
            names: Only these experts; ``None``: all.
            name: Its name here, where one expert is imported.
            overwrite: Replace experts of the same names.

        Returns:
            The names they got.

        Raises:
            MissingDataError: Nothing is at ``source``.
            ConfigError: An unknown name, or one that is taken.
            VerificationError: The archive is hostile, or a file is damaged or foreign.
        """
        from graphmoe.checkpoint import sharing

        return sharing.import_experts(
            cast("ExpertBank", self), source, names, name=name, overwrite=overwrite
        )

    @classmethod
    def from_pretrained(
        cls,
        source: PathLike,
        names: Sequence[str] | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: PathLike | None = None,
        endpoint: str | None = None,
    ) -> Self:
        """Shared experts, each verified, as a bank in memory.

        Args:
            source: A folder, a zip archive, or a repository on a hub (``"someone/experts"``),
                which takes ``pip install 'graphmoe[hub]'``.
            names: Only these experts; no others are downloaded. ``None``: all.
            revision: Branch, tag or commit of the repository.
            token: For a private one; ``None``: that of ``hf auth login`` or ``HF_TOKEN``.
            cache_dir: Where downloads are kept; ``None``: the hub library's own place.
            endpoint: Address of the hub; ``None``: ``HF_ENDPOINT``, or the public one.

        Raises:
            MissingDataError: There is no such repository, revision or file.
            MissingExtraError: The hub's library is not installed.
            VerificationError: A file is damaged or foreign.
        """
        from graphmoe.checkpoint import hub, sharing

        bank = cls()
        if Path(source).exists() or str(source).lower().endswith(sharing.ZIP):
            bank.import_from(source, names)
        else:
            where: dict[str, Any] = {"revision": revision, "token": token, "endpoint": endpoint}
            hub.pull(cast("ExpertBank", bank), str(source), names, cache_dir=cache_dir, **where)
        return bank

    def push_to_hub(
        self,
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
        """Send experts and a model card to a repository on a hub, in one commit.

        Experts of other names that are there stay, and stand on the card too.

        Args:
            repo_id: ``"you/experts"``; created where it is missing.
            names: Which experts; ``None``: all.
            licence: See :meth:`export`.
            intended_use: See :meth:`export`.
            private: Whether a new repository is private.
            revision: Branch to commit to; ``None``: the main one.
            message: Of the commit.
            token: One that may write; ``None``: that of ``hf auth login`` or ``HF_TOKEN``.
            endpoint: Address of the hub; ``None``: ``HF_ENDPOINT``, or the public one.

        Returns:
            The address of the commit.
        """
        from graphmoe.checkpoint import hub

        return hub.push(
            cast("ExpertBank", self),
            repo_id,
            names,
            licence=licence,
            intended_use=intended_use,
            private=private,
            revision=revision,
            message=message,
            token=token,
            endpoint=endpoint,
        )

    def pull_from_hub(
        self,
        repo_id: str,
        names: Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: PathLike | None = None,
        endpoint: str | None = None,
    ) -> tuple[str, ...]:
        """Add experts of a repository on a hub to this bank; see :meth:`from_pretrained`.

        Returns:
            The names of the experts; all are verified before the first is added.
        """
        from graphmoe.checkpoint import hub

        return hub.pull(
            cast("ExpertBank", self),
            repo_id,
            names,
            overwrite=overwrite,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            endpoint=endpoint,
        )
