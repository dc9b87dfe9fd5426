"""Graph to graph. Every pass ends with a verified graph."""
