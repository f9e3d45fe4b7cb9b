"""Lip-sync engines, registered by name through entry points."""
