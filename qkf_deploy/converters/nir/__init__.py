"""NIR (Neuromorphic Intermediate Representation), both ways. https://neuroir.org, Pedersen et al. 2024."""
