"""The diagnostics of a node: lifecycle, inputs, refusals, output, cycle, age; `<node>: <check>` as in REP 107."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wm_ros.messages.status import ERROR, OK, STALE, WARN, Status

if TYPE_CHECKING:
    from wm_ros.nodes.managed import ManagedNode


def statuses(node: ManagedNode) -> list[Status]:
    """One line for each check; only that of the lifecycle unless it is active."""
    label = node.label
    level = ERROR if node.problem else OK
    statuses = [Status(f"{node.name}: lifecycle", level, node.problem or label, {"state": label})]
    if not node.active:
        return statuses
    quiet = {name: f"{node.quiet_s(name):.2f}" for name in node.watched()}
    stale = [f"'{name}' for {quiet[name]} s" for name in sorted(node.silent & quiet.keys())]
    counts = {f"{name}_received": str(count) for name, count in sorted(node.heard_count.items())}
    refused = {kind.replace(" ", "_"): str(count) for kind, count in sorted(node.streaks.total.items())}
    total = sum(node.streaks.total.values())
    return [
        *statuses,
        Status(
            f"{node.name}: inputs",
            STALE if stale else OK,
            f"silent: {', '.join(stale)}" if stale else "all inputs arrive",
            {f"{name}_quiet_s": text for name, text in quiet.items()} | counts,
        ),
        Status(
            f"{node.name}: refused",
            WARN if node.streaks.running else OK,
            "; ".join(sorted(f"'{source}' {kind}" for source, kind in node.streaks.running)) or f"{total} in all",
            refused,
        ),
        Status(
            f"{node.name}: output",
            WARN if node.withheld else OK,
            f"withheld: {node.withheld}" if node.withheld else f"{node.published} published",
            {"published": str(node.published)},
        ),
        node.budget.status(node.name),
        Status(f"{node.name}: age", OK, "from stamp to publication", node.ages_ms.figures("ms")),
        *node.checks(),
    ]
