"""Comparisons over a set of images: accuracy and spike agreement."""
