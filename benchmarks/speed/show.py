"""The report's tables as text."""

from typing import Any

WIDTH = 66  # of the names of ways


def ceilings(found: dict[str, Any]) -> str:
    """What the device does at best, in a line."""
    flops = ", ".join(
        f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in found["flops_per_second"].items()
    )
    copied = found["bytes_per_second"] / 1e9
    return f"at best: products of {found['side']}: {flops}; copying {copied:,.1f} GB/s"


def tables(part: str, measured: dict[str, Any]) -> str:
    """A part's comparisons, limits and curves."""
    lines = []
    for table in measured.get("comparisons", []):
        lines += [f"\n{part}: {table['what']}, {table['unit']} a second (a processor second)"]
        for row in table["ways"]:
            cpu = f"({row['rate_cpu']:,.4g})" if "rate_cpu" in row else ""
            ratio = row.get("ours_times_as_fast")
            beside = "" if ratio is None else f"  {ratio:6.2f}"
            beside += f" ({row['ours_times_as_fast_cpu']:.2f})" if "rate_cpu" in row else ""
            lines.append(f"  {row['way']:{WIDTH}} {row['rate']:>9,.4g} {cpu:>9}{beside}")
    for row in measured.get("limits", []):
        lines.append(
            f"  {row['share_of_limit']:.0%} of the limit by {row['bound_by']}: {row['what']}\n"
            f"    {row['flops'] / 1e9:,.2f} GFLOP = {1e3 * row['seconds_by_flops']:,.2f} ms, "
            f"{row['bytes'] / 1e9:,.2f} GB = {1e3 * row['seconds_by_bytes']:,.2f} ms, "
            f"measured {1e3 * row['seconds']:,.2f} ms"
        )
    for curve in measured.get("curves", []):
        lines.append(f"\n{part}: {curve['what']}, over {curve['over']}")
        for point in curve["points"]:
            words = [f"{name} {point[name]:g}" for name in point if point[name] is not None]
            lines.append("  " + ", ".join(words))
    return "\n".join(lines)
