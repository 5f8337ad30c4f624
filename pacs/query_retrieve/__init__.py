"""C-FIND, C-GET and C-MOVE (PS3.4 C)."""
