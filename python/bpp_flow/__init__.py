"""bpp-flow in Python: what runs in its workers."""
