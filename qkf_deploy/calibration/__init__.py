"""What is fitted to a network's own data without training: leftover membranes."""
