"""Reading graphs that do not fit in memory: streams of edges and rows, and an external sort."""
