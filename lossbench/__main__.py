"""``python -m lossbench`` is ``lossbench``."""

from lossbench.bench.interface.cli import main

if __name__ == "__main__":
    main()
