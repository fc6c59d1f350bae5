"""What was measured, as Markdown."""

import collections
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


@dataclasses.dataclass(frozen=True)
class Network:
    """What one network costs.

    name: which, and the size of its patch; one volume at a time.
    parameters: that train.
    forward_seconds: volume to detections.
    train_seconds: of a train step.
    first_step_seconds: of the first one, which is traced.
    peak_bytes: of a train step, beyond variables, the optimizer's moments and the volume.
    forward_flops: of convolutions and matrix products.
    train_flops: likewise.
    product_flops_per_second: of a large matrix product in the same minutes.
    parts: {part: share of the time of all operations of a train step}.
    convolutions: share of the convolutions in it.
    kinds: {type of operation: share}, largest first.
    """

    name: str
    parameters: int
    forward_seconds: float
    train_seconds: float
    first_step_seconds: float
    peak_bytes: float
    forward_flops: float
    train_flops: float
    product_flops_per_second: float
    parts: dict
    convolutions: float
    kinds: dict


# What a train step should reach: seconds of the first, share of a matrix product's speed, share of convolutions.
FIRST_STEP, SPEED_SHARE, CONVOLUTION_SHARE = 60, 0.5, 0.75
# What takes less of the time in every network is not listed.
LEAST_SHARE = 0.015


def network_tables(rows):
    """Cost, arithmetic, time by part and by operation, as four tables."""
    tables = _cost_table(rows), _arithmetic_table(rows), _share_table(rows, "part"), _share_table(rows, "kind")
    return "\n\n".join(tables)


def _cost_table(rows):
    lines = [
        f"| {r.name} | {r.parameters / 1e6:.1f} M | {r.forward_seconds * 1e3:.0f} | {r.train_seconds * 1e3:.0f} | "
        f"{1 / r.forward_seconds:.2g} | {1 / r.train_seconds:.2g} | {r.peak_bytes / 1e6:,.0f} MB | "
        f"{r.first_step_seconds:.0f} s, < {FIRST_STEP} s {_mark(r.first_step_seconds < FIRST_STEP)} |"
        for r in rows
    ]
    header = "network | parameters | forward, ms | train step, ms | volumes/s forward | volumes/s training"
    return _table(f"{header} | memory of a train step | first step, with tracing", lines)


def _arithmetic_table(rows):
    lines = []
    for r in rows:
        forward, train = r.forward_flops / r.forward_seconds, r.train_flops / r.train_seconds
        product = r.product_flops_per_second
        lines.append(
            f"| {r.name} | {r.forward_flops / 1e9:.0f} | {r.train_flops / 1e9:.0f} | {forward / 1e9:.0f} | "
            f"{train / 1e9:.0f} | {product / 1e9:.0f} | {forward / product:.0%} | "
            f"{train / product:.0%}, ≥ {SPEED_SHARE:.0%} {_mark(train / product >= SPEED_SHARE)} | "
            f"{r.convolutions:.0%}, ≥ {CONVOLUTION_SHARE:.0%} {_mark(r.convolutions >= CONVOLUTION_SHARE)} |"
        )
    header = "network | GFLOP forward | GFLOP train step | GFLOP/s forward | GFLOP/s train step"
    more = "GFLOP/s of a matrix product | share, forward | share, train step | convolutions in the time of a train step"
    return _table(f"{header} | {more}", lines)


def _share_table(rows, key):
    """Shares of the time of a train step by `key`, part or kind of operation, a column for each network."""
    shares = [getattr(r, f"{key}s") for r in rows]
    largest = collections.Counter()
    for share in shares:
        largest |= collections.Counter(share)  # the larger of the two
    names = [name for name, value in largest.most_common() if value >= LEAST_SHARE]
    lines = [f"| {name} | {' | '.join(f'{share.get(name, 0):.1%}' for share in shares)} |" for name in names]
    return _table(f"{key} | {' | '.join(r.name for r in rows)}", lines)


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
