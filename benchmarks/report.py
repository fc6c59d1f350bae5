"""What was measured, as Markdown."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Speed:
    """One piece of work, done by the ops here and by a peer in the same process.

    work: what is done.
    seconds: of ours.
    peer: what it is compared with.
    peer_seconds: of the peer.
    target: how many times faster ours should be.
    bytes: that have to be moved at the least.
    flops: that have to be computed at the least.
    """

    work: str
    seconds: float
    peer: str
    peer_seconds: float
    target: float
    bytes: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Limit:
    """One piece of work that has to stay below a limit.

    work: what is done.
    value: measured.
    limit: what it should stay below.
    unit: of both.
    """

    work: str
    value: float
    limit: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Growth:
    """Time of one piece of work at growing counts.

    work: what is done.
    points: (count, seconds) pairs, each count twice the one before.
    """

    work: str
    points: list


def speed_table(rows):
    """| work | ours | peer | ratio | target |, met or not."""
    lines = [
        f"| {r.work} | {r.seconds * 1e3:.1f} | {r.peer} | {r.peer_seconds * 1e3:.1f} | "
        f"{r.peer_seconds / r.seconds:.1f}x | ≥ {r.target:g}x {_mark(r.peer_seconds / r.seconds >= r.target)} |"
        for r in rows
    ]
    return _table("work | ours, ms | peer | peer, ms | ratio | target", lines)


def limit_table(rows):
    """| work | measured | limit |, met or not."""
    lines = [f"| {r.work} | {r.value:.3g} {r.unit} | < {r.limit:g} {r.unit} {_mark(r.value < r.limit)} |" for r in rows]
    return _table("work | measured | limit", lines)


def bound_table(rows, bytes_per_second, flops_per_second):
    """| work | ours | least traffic | least arithmetic | bound | ours / bound |."""
    lines = []
    for r in rows:
        traffic, arithmetic = r.bytes / bytes_per_second, r.flops / flops_per_second
        bound, kind = max((traffic, "memory"), (arithmetic, "arithmetic"))
        lines.append(
            f"| {r.work} | {r.seconds * 1e3:.1f} | {r.bytes / 1e6:.0f} MB | {r.flops / 1e9:.2g} G | "
            f"{bound * 1e3:.2g} ({kind}) | {r.seconds / bound:.0f}x |"
        )
    return _table("work | ours, ms | least traffic | least arithmetic | bound, ms | ours / bound", lines)


def growth_table(rows):
    """| work | count: ms ... | growth per doubling |."""
    lines = []
    for r in rows:
        points = ", ".join(f"{count:,}: {seconds * 1e3:.1f}" for count, seconds in r.points)
        steps = [later[1] / earlier[1] for earlier, later in zip(r.points, r.points[1:], strict=False)]
        lines.append(f"| {r.work} | {points} | {', '.join(f'{step:.2f}x' for step in steps)} |")
    return _table("work | count: ms | per doubling", lines)


def _table(header, lines):
    columns = header.count("|") + 1
    return "\n".join([f"| {header} |", "|" + "---|" * columns, *lines])


def _mark(met):
    return "✓" if met else "**missed**"
