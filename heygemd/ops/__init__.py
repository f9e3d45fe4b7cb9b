"""Logs, service manager, retention."""
