"""Data directories as each released format wrote them, and that they open in this version."""
