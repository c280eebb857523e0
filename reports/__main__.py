"""``python -m reports`` is ``lossreport``."""

from lossbench.reports.cli import main

if __name__ == "__main__":
    main()
