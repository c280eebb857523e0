"""Tables, one file each: ``build(records)`` returns the sections of the table named by the file."""
