"""Cases to records: counting, predicting, measuring, sweeping. See ``lossbench --help``."""
