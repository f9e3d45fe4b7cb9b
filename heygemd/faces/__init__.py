"""Finding, following and repainting faces."""
