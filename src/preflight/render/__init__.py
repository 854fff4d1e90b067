"""The report in the forms that people and programs read: one format a file."""
