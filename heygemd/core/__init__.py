"""Nouns and decisions. No effects: stdlib, numpy and pydantic only."""
