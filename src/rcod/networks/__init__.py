"""The networks, the step that joins them, and the files that hold their weights."""
