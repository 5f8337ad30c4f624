"""What a query means (PS3.4 C.2.2.2): its identifier, its keys, and the conditions they become."""
