"""Tables of large graphs, of several processes, and of where pre-training's time goes."""

from __future__ import annotations

from typing import Any

from markdown_table import table

STAGES = {"import": "import", "propagate": "propagate", "pretrain": "pre-train", "embed": "embed"}
#: Parts of a profile in the order in which they happen.
PARTS = (
    "interpreter",
    "libraries",
    "read",
    "views",
    "products",
    "dropped edges",
    "strips",
    "masks",
    "dense",
    "Adam",
    "written",
    "rest",
)


def scale(content: dict[str, Any]) -> str:
    """Time, memory and disk of each size, and how they grow."""
    head = ["edges", "nodes", *(f"{name}, s" for name in STAGES.values())]
    head += ["own memory, GB", "with mapped pages, GB", "disk, GB", "PyG's DGI: s", "GB"]
    parts = []
    for kind, slopes in content["slopes"].items():
        rows = [row for row in content["rows"] if row.get("kind", "homogeneous") == kind]
        told = ", ".join(f"{STAGES[stage]} {slope:.2f}" for stage, slope in slopes.items())
        parts += [
            f"{kind.capitalize()}; slopes of processor time on log-log axes (1: linear): {told}.",
            table(head, [_size(row) for row in rows]),
        ]
    return "\n\n".join(parts)


def _size(row: dict[str, Any]) -> list[str]:
    stages = [row[stage] for stage in STAGES if stage in row]
    disk = row["input_mb"] + row["graph_mb"] + max(stage.get("disk_mb", 0) for stage in stages)
    plain = row.get("plain", {})
    beside = ["–", "–"]
    if "s" in plain:
        beside = [f"{plain['s']:.1f}", f"{plain['own_mb'] / 1024:.1f}"]
    elif plain:
        beside = ["does not fit", ""]
    return [
        f"{row['edges']:,}",
        f"{row['nodes']:,}",
        *(f"{row[stage]['s']:.1f}" if stage in row else "–" for stage in STAGES),
        f"{max(stage['own_mb'] for stage in stages) / 1024:.1f}",
        f"{max(stage['peak_mb'] for stage in stages) / 1024:.1f}",
        f"{disk / 1024:.1f}",
        *beside,
    ]


def quality(content: dict[str, Any]) -> str:
    """Accuracy of both modes beside the floor."""
    runs = content["runs"]
    lines = []
    for row in content["rows"]:
        own = [r for r in runs if (r["graph"], r["mode"]) == (row["graph"], row["mode"])]
        steps = [r["steps"] for r in own]
        cpu = sum(r["cpu_s"] for r in own) / len(own)
        lines.append(
            [
                row["graph"],
                row["mode"],
                f"{row['mean']:.1f} ± {row['std']:.1f}",
                f"{min(steps):,} to {max(steps):,}",
                f"{cpu:.0f}",
            ]
        )
    return table(["graph", "mode", "accuracy, %", "steps", "processor seconds"], lines)


def profile(content: dict[str, Any]) -> str:
    """Seconds of each part."""
    rows = content["rows"]
    lines = [[part, *(f"{row['seconds'].get(part, 0.0):.1f}" for row in rows)] for part in PARTS]
    lines.append(["all", *(f"{row['total_cpu_s']:.1f}" for row in rows)])
    lines.append(["by the clock", *(f"{row['wall_s']:.1f}" for row in rows)])
    return table(["seconds", *(row["name"] for row in rows)], lines)


def bandwidth(content: dict[str, Any]) -> str:
    """What sparse products take, and what they move."""
    lines = []
    for row in content["rows"]:
        found, machine = row["products"], row["machine"]
        lines.append(
            [
                row["name"],
                f"{found['share_of_epochs']:.0%}",
                f"{found['share_of_all']:.0%}",
                f"{found['gathered_gb_s']:.1f}",
                f"{found['least_gb_s']:.1f}",
                f"{machine['copy_gb_s']:.1f}",
                f"{machine['random_rows_gb_s']:.1f}",
            ]
        )
    head = ["", "share of epochs", "share of all", "gathered, GB/s", "least, GB/s"]
    return table([*head, "machine: copy, GB/s", "machine: random rows, GB/s"], lines)


def processes(content: dict[str, Any]) -> str:
    """A step of divided batches."""
    lines = [
        [
            str(row["processes"]),
            f"{row['ms']:.0f}",
            f"{row['rows_and_masks_ms']:.0f}",
            f"{row['wall_ms']:.0f}",
            f"{row['collectives']:.0f}",
            f"{row['kilobytes']:.0f}",
        ]
        for row in content["steps"]
    ]
    head = ["processes", "processor, ms", "of it rows and masks, ms", "clock, ms"]
    return table([*head, "collectives", "KB a process"], lines)


def whole(content: dict[str, Any]) -> str:
    """One expert by several processes, from the first epoch to the last."""
    alone = content["whole"][0]
    lines = [
        [
            str(row["processes"]),
            f"{row['seconds']:.1f}",
            f"{alone['seconds'] / row['seconds']:.2f}",
            f"{row['loss']:.6f}",
        ]
        for row in content["whole"]
    ]
    return table(["processes", "seconds", "times faster", "loss"], lines)


def row_blocks(content: dict[str, Any]) -> str:
    """Products that are read by row blocks, and a step of one process."""
    found, alone = content["products"], content["steps"][0]
    lines = [
        ["product, an entry of the matrix and a column, base view", f"{found['base_ns']:.2f} ns"],
        ["the same, view with dropped edges", f"{found['dropped_ns']:.2f} ns"],
        ["step of one process, 4,096 nodes, 3 views", f"{alone['ms']:.0f} ms"],
        ["of which: reading rows and drawing masks", f"{alone['rows_and_masks_ms']:.0f} ms"],
    ]
    return table(["", "processor time"], lines)


TABLES: dict[str, Any] = {
    "scale": ("scale.json", scale),
    "batch_quality": ("batch_quality.json", quality),
    "profile": ("pretrain_profile.json", profile),
    "bandwidth": ("pretrain_profile.json", bandwidth),
    "processes": ("distributed.json", processes),
    "whole": ("distributed.json", whole),
    "row_blocks": ("distributed.json", row_blocks),
}
