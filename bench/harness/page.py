"""report.html: one file, plots as SVG inside it; readable without a network and in ten years."""

import html
import io
import itertools
import re

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

from harness import figures, tables  # noqa: E402
from harness.scenarios import short  # noqa: E402

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.why { text-align: left; color: #777; white-space: normal; }
tr.ours { background: #eef6ff; font-weight: 600; }
svg { max-width: 100%; height: auto; }
figure { margin: 1em 0; }
"""
BAR_MAX = 3
OURS, LIMIT = ["#0b6bcb", "#7fb8ee", "#003a75"], "#999999"
PEERS = ["#d9822b", "#2e8b57", "#8e44ad", "#c0392b", "#7f6000", "#16808d", "#b03a72"]
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "proofgw", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5", "axes.axisbelow": True,
})  # fmt: skip


def colours(results):
    """One for each gateway; the shortest of our names is the gateway itself, the others are variants of it."""
    left = {"ours": itertools.cycle(OURS), "limit": itertools.repeat(LIMIT), "peer": itertools.cycle(PEERS)}
    return {name: next(left[results["gateways"][name]["kind"]]) for name in sorted(results["gateways"], key=len)}


def svg_text(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), flags=re.S)


def svg(figure):
    return f"<figure>{svg_text(figure)}</figure>"


def of_shape(results, shape):
    return {name: s for name, s in results["scenarios"].items() if s["shape"] == shape}


def ratio_bars(results):
    """Of every gateway, in every cost scenario: its ratio to the best peer."""
    shown = {}
    for name, scenario in of_shape(results, "cost").items():
        rows = {gateway: figures.summary(results, scenario, gateway) for gateway in scenario["values"]}
        shown[name] = {gateway: row for gateway, row in rows.items() if row and "ratio" in row}
    shown = {name: rows for name, rows in shown.items() if rows}
    if not shown:
        return ""
    gateways, palette = list(results["gateways"]), colours(results)
    figure, axes = pyplot.subplots(figsize=(11, 0.4 + len(shown) * (0.25 + 0.14 * len(gateways))))
    height = 0.85 / len(gateways)
    for at, rows in enumerate(shown.values()):
        for index, (gateway, row) in enumerate(rows.items()):
            y = at + (index - len(rows) / 2 + 0.5) * height
            length, noise = min(row["ratio"], BAR_MAX), row["noise"] if row["ratio"] < BAR_MAX else 0
            axes.barh(y, length, height, color=palette[gateway], xerr=noise, error_kw={"lw": 0.6})
            axes.text(length + noise + 0.02, y, f"{row['ratio']:.2f}", va="center", fontsize=6)
    axes.set_yticks(range(len(shown)), [f"{name}: {results['scenarios'][name]['title']}" for name in shown])
    axes.set_xlim(0, BAR_MAX * 1.15)
    axes.set_ylim(len(shown) - 0.45, -0.55)
    axes.axvline(1, color="#444", lw=0.8)
    axes.set_xlabel(f"processor time, best peer of the same run = 1 (bars end at {BAR_MAX}); line: +- of the tables")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=palette[name]) for name in gateways]
    titles = [results["gateways"][name]["title"] for name in gateways]
    axes.legend(handles, titles, loc="lower center", ncol=4, bbox_to_anchor=(0.4, 1), frameon=False)
    return "<h2>Cost</h2>" + svg(figure)


def summary(results):
    """One SVG for the README: what we cost in each scenario beside the best peer of the run (1), and the limit."""
    ours = min((name for name, g in results["gateways"].items() if g["kind"] == "ours"), key=len)  # not a variant of it
    limit = next((name for name, g in results["gateways"].items() if g["kind"] == "limit"), None)
    shown = {}
    for name, scenario in of_shape(results, "cost").items():
        rows = {who: figures.summary(results, scenario, who) for who in (ours, limit) if who in scenario["values"]}
        if rows.get(ours) and "ratio" in rows[ours]:
            shown[f"{name}: {scenario['title']}"] = rows
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.26 * len(shown)))
    for y, rows in enumerate(shown.values()):
        axes.barh(y, rows[ours]["ratio"], 0.7, color=OURS[0])
        axes.text(rows[ours]["ratio"] + 0.01, y, f"{rows[ours]['ratio']:.2f}", va="center", fontsize=8)
        if rows.get(limit) and "ratio" in rows[limit] and rows[limit]["ratio"] < 1:
            axes.plot([rows[limit]["ratio"]] * 2, [y - 0.35, y + 0.35], color="#222222", lw=1.4)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.axvline(1, color="#d9822b", lw=1.2)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("processor time; orange: the best peer of the run = 1; black: a TCP relay that judges nobody")
    return svg_text(figure)


def latency_curves(results):
    """Against the share of operations, the tail stretched: 90 %, 99 %, 99.9 %, ..."""
    shown = {name: s for name, s in of_shape(results, "cost").items() if s.get("rate")}
    if not shown:
        return ""
    palette = colours(results)
    figure, row = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 4), squeeze=False)
    for axes, (name, scenario) in zip(row[0], shown.items()):
        for gateway, value in scenario["values"].items():
            if not figures.is_able(value):
                continue
            total, seen, x, y = sum(n for _, n in value["histogram"]), 0, [], []
            for us, n in value["histogram"]:
                seen += n
                x.append(1 / max(1 - seen / total, 0.5 / total))
                y.append(us)
            axes.plot(x, y, color=palette[gateway], label=results["gateways"][gateway]["title"], lw=1.2)
        axes.set(xscale="log", yscale="log", title=f"{name}: {scenario['title']}", ylabel="us", xlabel="percentile")
        ticks = [1, 2, 10, 100, 1000, 10000]
        axes.set_xticks(ticks, ["0", "50", "90", "99", "99.9", "99.99"])
        axes.legend(frameon=False, fontsize=7)
    return "<h2>Latency at a fixed rate</h2>" + svg(figure)


def memory_bars(results):
    scenario = results["scenarios"].get("H")
    if not scenario:
        return ""
    palette = colours(results)
    figure, row = pyplot.subplots(1, len(scenario["columns"]), figsize=(11, 2.6))
    for axes, key in zip(row, scenario["columns"]):
        able = {name: value[key] for name, value in scenario["values"].items() if key in value}
        titles = [results["gateways"][name]["title"] for name in able]
        axes.barh(titles, list(able.values()), color=[palette[name] for name in able])
        axes.set(title=key, xlabel="KiB")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=6)
    figure.tight_layout()
    return "<h2>Memory per idle connection</h2>" + svg(figure)


def curves(results):
    shown = of_shape(results, "curve")
    if not shown:
        return ""
    palette = colours(results)
    figure, row = pyplot.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.4), squeeze=False)
    for axes, scenario in zip(row[0], shown.values()):
        for gateway, value in scenario["values"].items():
            if value["x"]:
                axes.plot(value["x"], value["cost_us"], "o-", ms=3, lw=1.2, color=palette[gateway],
                          label=results["gateways"][gateway]["title"])  # fmt: skip
        axes.set(xscale="log", title=scenario["title"], xlabel=scenario["axis"], ylabel=scenario["unit"])
        sizes = sorted({x for value in scenario["values"].values() for x in value["x"]})
        axes.set_xticks(sizes, [short(size) for size in sizes], fontsize=7)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    row[0][-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return "<h2>Scaling</h2>" + svg(figure)


def size_curves(results):
    """Start time and memory against the number of partners."""
    scenario = results["scenarios"].get("I")
    if not scenario:
        return ""
    palette = colours(results)
    figure, row = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for axes, what in zip(row, ("start", "memory")):
        keys = [key for key in scenario["columns"] if key.startswith(what + " ")]
        for gateway, value in scenario["values"].items():
            have = [key for key in keys if key in value]
            if have:
                names = [key.partition(" ")[2] for key in have]
                axes.plot(names, [value[key] for key in have], "o-", ms=3, lw=1.2, color=palette[gateway],
                          label=results["gateways"][gateway]["title"])  # fmt: skip
        axes.set(title=what, xlabel="partners", ylabel=scenario["columns"][keys[0]], yscale="log")
    row[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return "<h2>Partners</h2>" + svg(figure)


def table(results, name):
    header, rows = tables.rows_of(results, name)
    ours = {g["title"] for g in results["gateways"].values() if g["kind"] == "ours"}
    out = [f"<h3>{html.escape(name)}: {html.escape(results['scenarios'][name]['title'])}</h3><table><tr>"]
    out += [f"<th>{html.escape(cell)}</th>" for cell in header]
    for row in rows:
        out.append('</tr><tr class="ours">' if row[0].removesuffix(" *") in ours else "</tr><tr>")
        for at, cell in enumerate(row):
            why = f' class="why" colspan="{max(1, len(header) - at)}"' if cell.startswith("n/a") else ""
            out.append(f"<td{why}>{html.escape(cell)}</td>")
    return "".join([*out, "</tr></table>"])


def gateways_table(results):
    out = ["<h2>Gateways</h2><table><tr><th>gateway</th><th>version</th><th>does less</th><th>not proven</th></tr>"]
    for gateway in results["gateways"].values():
        failed = [f"{check}: {why}" for check, why in gateway.get("proofs", {}).items() if why]
        cells = [gateway["title"], gateway["version"], gateway["less"], "; ".join(failed)]
        cells = [f'<td class="why">{html.escape(cell)}</td>' for cell in cells]
        out.append(f"<tr>{''.join(cells)}</tr>")
    return "".join([*out, "</table>"])


def render(results):
    m = results["machine"]
    about = (
        f"{results['date']}; {m['processors']} x {m['model']}, Linux {m['kernel']}, {m['system']}, load average "
        f"{m['load']:.1f} at the start; {results['rounds']} rounds of {results['seconds']} s, {results['partners']:,} partners. "
        "Compare only inside one report: processor time depends on the machine and on the hour. * is the best peer."
    )
    plots = (ratio_bars, latency_curves, memory_bars, curves, size_curves)
    return "".join([
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>proofgw: measurements</title>",
        f"<style>{STYLE}</style><h1>proofgw and its peers</h1><p>{html.escape(about)}</p>",
        *(plot(results) for plot in plots),
        "<h2>Figures</h2>",
        *(table(results, name) for name in results["scenarios"]),
        gateways_table(results),
        "</html>\n",
    ])  # fmt: skip
