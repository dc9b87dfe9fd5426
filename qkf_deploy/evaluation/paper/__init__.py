"""What can be recomputed of the QKFormer paper (arXiv 2403.16552), table by table."""
