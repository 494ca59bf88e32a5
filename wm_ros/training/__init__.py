"""One loop trains all four capabilities; each says in one file what its data, its loss and its bundle are."""
