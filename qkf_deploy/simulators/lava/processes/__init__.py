"""The Lava processes. Process and model files only: Lava executes every file of this folder to find process models.

Every port carries int64 of the per-step shape of one value (``(C, H, W)``, ``(heads, d, N)`` ...), one message per time
step; a scalar travels as shape ``(1,)``. A value reaches its reader in the time step in which it was sent.
"""
