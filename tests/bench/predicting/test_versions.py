"""A file has a table for each version of Triton."""

from lossbench.bench.predicting.versions import replaced, section

FILE = """# Title

Some words.

## triton 3.7.1

| a |
|---|

## triton 3.6.0

| b |

## Notes

Not a table.
"""


def test_the_table_of_a_version():
    assert section(FILE, "3.7.1") == "| a |\n|---|\n"
    assert section(FILE, "3.6.0") == "| b |\n"
    assert section(FILE, "3.7") is None


def test_only_that_version_is_replaced():
    for version, other in (("3.7.1", "3.6.0"), ("3.6.0", "3.7.1")):
        made = replaced(FILE, version, "| new |\n")
        assert section(made, version) == "| new |\n"
        assert section(made, other) == section(FILE, other)
        assert made.startswith("# Title\n\nSome words.\n")
        assert made.endswith("\n\n## Notes\n\nNot a table.\n")


def test_what_is_there_already_changes_nothing():
    for version in ("3.7.1", "3.6.0"):
        assert replaced(FILE, version, section(FILE, version)) == FILE


def test_a_version_that_is_new_comes_last():
    made = replaced("# Title\n", "3.8.0", "| c |\n")
    assert made == "# Title\n\n## triton 3.8.0\n\n| c |\n"
    assert replaced("", "3.8.0", "| c |\n") == "## triton 3.8.0\n\n| c |\n"
    assert replaced(made, "3.9.0", "| d |\n").endswith("| c |\n\n## triton 3.9.0\n\n| d |\n")
