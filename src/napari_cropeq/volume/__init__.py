"""Big arrays, in and out: files as lazy arrays, stores of tiles, export."""
