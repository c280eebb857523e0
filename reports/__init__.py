"""Records to tables, figures and pages. Reads run files; measures nothing."""
