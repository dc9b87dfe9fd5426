"""The compiled kernels of the event engine and what they are made of."""
