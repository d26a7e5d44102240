"""What bench/run.py, report.py and compare.py are made of: python3's standard library, and matplotlib for the plots."""
