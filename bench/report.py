#!/usr/bin/python3
"""Makes the pages of a run again from its results.json.

    bench/report.py build/bench/results.json                report.html beside it
    bench/report.py build/bench/results.json --commit       ... and the tables in bench/RESULTS.md, and bench/results.svg
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import tables  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
BEGIN, END = "<!-- tables: bench/report.py -->\n", "<!-- end of tables -->\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results", type=Path)
    p.add_argument("--commit", action="store_true", help="replace the tables in bench/RESULTS.md")
    o = p.parse_args()
    try:
        results = tables.read(o.results)
    except tables.Unreadable as e:
        sys.exit(f"report.py: {e}")
    if o.commit:
        text = RESULTS.read_text()
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            sys.exit(f"{RESULTS}: the marks around the tables are missing")
        RESULTS.write_text(before + BEGIN + "\n" + tables.markdown(results) + "\n" + END + after)
    from harness import page

    if o.commit:
        RESULTS.with_name("results.svg").write_text(page.summary(results))
    o.results.with_name("report.html").write_text(page.render(results))


if __name__ == "__main__":
    main()
