"""results.json as text tables (terminal) and Markdown (RESULTS.md)."""

import json

from harness import figures


class Unreadable(Exception):
    """A file is no results.json; the text says why."""


def read(path):
    """What run.py wrote."""
    try:
        results = json.loads(path.read_text())
    except OSError as e:
        raise Unreadable(f"{path}: {e.strerror}")
    except ValueError as e:
        raise Unreadable(f"{path}: {e}")
    if not isinstance(results, dict) or results.get("format") != 1:
        raise Unreadable(f"{path}: no results of run.py")
    return results


def rows_of(results, name):
    """(header, rows) of one scenario; all cells are text."""
    scenario = results["scenarios"][name]
    return {"cost": _cost_rows, "figures": _figure_rows, "curve": _curve_rows}[scenario["shape"]](results, scenario)


def _title(results, name):
    return results["gateways"][name]["title"]


def _speed(scenario, row):
    """Below the rate that was asked for, the cost is that of saturation, and the latency that of a queue: it is said."""
    rate, reached = scenario.get("rate", 0), figures.number(row["per_second"])
    return f"{reached} of {rate:,}" if row["per_second"] < 0.99 * rate else reached


def _cost_rows(results, scenario):
    header = ["gateway", scenario["unit"], "ratio", "by rounds", "+-", "per second", "util", "p50 us", "p99 us", "p99.9 us"]
    best, rows, missing = figures.best_peer(results, scenario), [], []
    for name, value in scenario["values"].items():
        row = figures.summary(results, scenario, name)
        if not row:
            missing.append([_title(results, name), f"n/a: {value.get('na', 'no figures')}"])
            continue
        ratio = [figures.number(row.get(key)) for key in ("ratio", "by_rounds")] + [figures.number(row.get("noise"), 1)]
        speed = [_speed(scenario, row), figures.number(row["util"], 2)]
        latency = [figures.number(row[key]) for key in ("p50", "p99", "p99.9")]
        title = _title(results, name) + (" *" if name == best else "")
        rows.append((row["cost"], [title, figures.number(row["cost"]), *ratio, *speed, *latency]))
    return header, [row for _, row in sorted(rows)] + missing


def _sized_rows(results, scenario):
    """A row per gateway and size."""
    sizes, columns = scenario["sizes"], scenario["columns"]
    kinds = [key.removesuffix(f" {sizes[0]}") for key in columns if key.endswith(f" {sizes[0]}")]
    header = ["gateway", "partners"] + [f"{kind} {columns[f'{kind} {sizes[0]}']}".strip() for kind in kinds]
    rows = []
    for name, value in scenario["values"].items():
        for size in sizes:
            figure = [value.get(f"{kind} {size}") for kind in kinds]
            if any(number is not None for number in figure):
                rows.append([_title(results, name), size] + [figures.number(number) for number in figure])
        why = sorted(set(value.get("na", {}).values()))
        rows += [[_title(results, name), f"n/a: {'; '.join(why)}"]] if why else []
    return header, rows


def _figure_rows(results, scenario):
    if "sizes" in scenario:
        return _sized_rows(results, scenario)
    keys = [key for key in scenario["columns"] if any(key in value for value in scenario["values"].values())]
    header = ["gateway"] + [f"{key} {scenario['columns'][key]}".strip() for key in keys]
    rows = []
    for name, value in scenario["values"].items():
        row = [_title(results, name)] + [figures.number(value.get(key)) for key in keys]
        why = sorted(set(value.get("na", {}).values()))
        rows.append(row + ([f"n/a: {'; '.join(why)}"] if why else []))
    return header, rows


def _curve_rows(results, scenario):
    sizes = sorted({x for value in scenario["values"].values() for x in value["x"]})
    header = [f"gateway, {scenario['unit']}"] + [f"{size:,} {scenario['axis']}" for size in sizes]
    rows = []
    for name, value in scenario["values"].items():
        at = dict(zip(value["x"], value["cost_us"]))
        rows.append([_title(results, name)] + [figures.number(at.get(size)) for size in sizes])
    return header, rows


def text(results, name):
    header, rows = rows_of(results, name)
    whole = [row for row in [header, *rows] if len(row) >= len(header)]
    widths = [max(len(row[i]) for row in whole) for i in range(len(header))]
    lines = [f"{name}: {results['scenarios'][name]['title']}"]
    for row in [header, *rows]:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  " + "  ".join([*cells, *row[len(widths) :]]).rstrip())
    return "\n".join(lines)


def markdown(results):
    """All scenarios; regenerated into RESULTS.md by bench/report.py."""
    machine, lines = results["machine"], []
    lines.append(
        f"{results['date']}, {machine['processors']} x {machine['model']}, Linux {machine['kernel']}, {machine['system']}, "
        f"load average {machine['load']:.1f} at the start; {results['rounds']} rounds of {results['seconds']} s, "
        f"{results['partners']:,} partners. `*` is the best peer of the run."
    )
    lines += ["", "| gateway | version | does less |", "|---|---|---|"]
    for gateway in results["gateways"].values():
        lines.append(f"| {gateway['title']} | {gateway['version']} | {gateway['less']} |")
    for name, scenario in results["scenarios"].items():
        header, rows = rows_of(results, name)
        lines += ["", f"### {name}: {scenario['title']}", "", _line(header), "|" + "---|" * len(header)]
        for row in rows:
            cells = (row + [""] * len(header))[: len(header)]
            cells[-1] = " ".join([cells[-1], *row[len(header) :]]).strip()
            lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
