"""What the answers and counts of a run say, and how sure: accuracy, spread over images, differences between runs."""
