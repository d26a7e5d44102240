"""From results.json to figures: lower quartiles, ratios to the best peer, noise."""

import math
import statistics

from harness.scenarios import percentile


def quantile(numbers, share):
    """Linear between neighbours."""
    ordered = sorted(numbers)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def is_able(value):
    return bool(value.get("cost_us"))


def cost(value):
    """Noise only adds: the lower quartile of the rounds."""
    return quantile(value["cost_us"], 0.25)


def peers(results, scenario):
    """Those that have figures, the cheapest first."""
    able = [
        name
        for name, value in scenario["values"].items()
        if results["gateways"][name]["kind"] == "peer" and is_able(value)
    ]
    return sorted(able, key=lambda name: cost(scenario["values"][name]))


def best_peer(results, scenario):
    """The name of the cheapest peer of this run, or None."""
    return next(iter(peers(results, scenario)), None)


def ratios_by_round(scenario, name, base):
    return [a / b for a, b in zip(scenario["values"][name]["cost_us"], scenario["values"][base]["cost_us"])]


def of_median(by_round):
    """(median, its noise): the 95 % notch of McGill, Tukey and Larsen."""
    spread = quantile(by_round, 0.75) - quantile(by_round, 0.25)
    return statistics.median(by_round), 1.57 * spread / math.sqrt(len(by_round))


def summary(results, scenario, name):
    """What the tables show of one gateway in a cost scenario; None where it has no figures."""
    value, base = scenario["values"][name], best_peer(results, scenario)
    if not is_able(value):
        return None
    row = {"cost": cost(value), "per_second": statistics.median(value["per_second"]), "util": statistics.median(value["util"])}
    for share, key in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
        row[key] = percentile(value["histogram"], share)
    if base:
        row["ratio"] = row["cost"] / cost(scenario["values"][base])
        row["by_rounds"], row["noise"] = of_median(ratios_by_round(scenario, name, base))
    return row


def number(value, digits=3):
    """So many digits that count; None is a dash."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
