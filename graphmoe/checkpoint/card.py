"""The page that introduces shared experts, written from what their manifests record."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import yaml

from graphmoe.checkpoint.manifest import ExpertManifest
from graphmoe.errors import ConfigError

CARD = "README.md"
#: How a card of ours is told from one that a person wrote, which is never replaced.
MARK = "<!-- written by graphmoe from the manifests; a page without this line is left alone -->"
UNSAID = "not stated"
INTENDED_USE = (
    "Frozen encoders of unlabelled graphs: fused on another graph from a few labelled nodes, used "
    "as fixed embeddings, or kept as a starting point. An expert knows one graph; whether it helps "
    "on another is to be measured there, on nodes that neither training nor choice has seen. They "
    "are not meant to decide about people without such an evaluation."
)

_HUB_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
#: Long or many values are cut: the manifest holds all of it.
_CELL = 120


def check_licence(licence: str) -> str:
    """``licence``, when it is a short name on one line.

    Raises:
        ConfigError: It is empty, long, or has other characters than a name has.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 .+_()-]{0,99}", licence):
        raise ConfigError(
            f"{licence[:80]!r} cannot name a licence: expected an identifier such as 'mit', "
            "'apache-2.0' or 'cc-by-4.0'"
        )
    return licence


def model_card(manifests: Sequence[ExpertManifest], source: str = "FOLDER_OR_ZIP") -> str:
    """The model card of ``manifests``, Markdown with the front matter that hubs read.

    Whatever a manifest says is shown as text: no markup, link or image in it comes alive.

    Args:
        manifests: Of the experts, in the order of the tables.
        source: What :meth:`~graphmoe.checkpoint.ExpertBank.from_pretrained` is to be given.
    """
    title = f"{len(manifests)} graph experts" if len(manifests) != 1 else "A graph expert"
    parts = [
        f"---\n{yaml.safe_dump(_front(manifests), sort_keys=False)}---",
        MARK,
        f"# {title}",
        "Encoders pre-trained without labels, each on one graph, for graphmoe. Weights are "
        "safetensors and the rest is JSON: loading them runs no code, and every file is compared "
        "with its recorded hash.",
        "```python\nfrom graphmoe import ExpertBank\n\n"
        f"bank = ExpertBank.from_pretrained({source!r})\n"
        f"bank[{manifests[0].name!r}](data.x, data.views)\n```"
        if manifests
        else "",
        "## Data",
        _table(("expert", "nodes", "views", "features", "graph's fingerprint"), _data, manifests),
        "## Protocol",
        _table(("expert", "class", "objective", "seed", "settings"), _protocol, manifests),
        "## Metrics",
        "Figures of the training itself, without labels. A loss is not comparable between graphs, "
        "and none of these says how well an expert does on another graph.",
        _table(("expert", "metrics"), _metrics, manifests),
        "## Licence",
        _table(("expert", "licence"), lambda m: (m.licence or UNSAID,), manifests),
        "The graphs an expert was trained on may have terms of their own.",
        "## Intended use",
        *_uses(manifests),
        "## Files",
        _table(("expert", "weights, bytes", "sha256", "written", "with"), _files, manifests),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(manifests: Sequence[ExpertManifest]) -> dict[str, Any]:
    front: dict[str, Any] = {}
    licences = {manifest.licence for manifest in manifests}
    if len(licences) == 1 and (licence := licences.pop()) is not None:
        if _HUB_LICENCE.fullmatch(licence.lower()):
            front["license"] = licence.lower()
        else:
            front |= {"license": "other", "license_name": licence}
    elif any(licences):
        front |= {"license": "other", "license_name": "see-below"}
    return front | {
        "library_name": "graphmoe",
        "pipeline_tag": "graph-ml",
        "tags": ["graphmoe", "graph-neural-networks", "mixture-of-experts"],
    }


def _data(manifest: ExpertManifest) -> tuple[Any, ...]:
    graph, alignment = manifest.graph, manifest.alignment
    width = alignment.get("channels", manifest.init.get("in_channels"))
    source = alignment.get("source")
    return (
        graph.get("num_nodes", UNSAID),
        " ".join(manifest.views) or UNSAID,
        f"{width} from {source}" if source else width,
        graph.get("fingerprint", UNSAID),
    )


def _protocol(manifest: ExpertManifest) -> tuple[Any, ...]:
    settings = {key: value for key, value in manifest.settings.items() if key != "objective"}
    return (
        manifest.model_class,
        manifest.settings.get("objective", manifest.task),
        UNSAID if manifest.seed is None else manifest.seed,
        _listed({**manifest.init, **settings}),
    )


def _metrics(manifest: ExpertManifest) -> tuple[Any, ...]:
    return (_listed(manifest.metrics) or UNSAID,)


def _files(manifest: ExpertManifest) -> tuple[Any, ...]:
    record = next(iter(manifest.files.values()), None)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    size, digest = (record.size, record.sha256) if record else (UNSAID, UNSAID)
    return size, digest, manifest.created, versions


def _uses(manifests: Sequence[ExpertManifest]) -> list[str]:
    own = [(m.name, m.intended_use) for m in manifests if m.intended_use]
    if len({use for _, use in own}) == 1 and len(own) == len(manifests):
        return [_text(own[0][1], 4000)]
    return [*(f"- {_text(name)}: {_text(use, 4000)}" for name, use in own), INTENDED_USE]


def _listed(values: dict[str, Any]) -> str:
    """Plain values as ``key value``; what is nested stays in the manifest."""
    plain = {key: value for key, value in values.items() if not isinstance(value, (dict, list))}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in plain.items()
    )


def _table(head: tuple[str, ...], row: Any, manifests: Sequence[ExpertManifest]) -> str:
    lines = [head, ("---",) * len(head)]
    lines += [
        tuple(_text(value, 4 * _CELL) for value in (manifest.name, *row(manifest)))
        for manifest in manifests
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any, length: int = _CELL) -> str:
    """``value`` on one line, with nothing in it that Markdown or HTML would act on."""
    line = " ".join(str(value).split())
    line = line if len(line) <= length else f"{line[: length - 1]}…"
    line = "".join(letter for letter in line if letter.isprintable())
    # A full stop or colon inside an address is enough for some to make it a link.
    line = re.sub(r"(?i)\b(https?|ftp|mailto|www)([:.])", r"\1 \2", line)
    return html.escape(re.sub(r"([\\`*_{}\[\]<>()#+!|~$@])", r"\\\1", line), quote=False)
