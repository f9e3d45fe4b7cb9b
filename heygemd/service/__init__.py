"""The daemon: dispatcher and main loop."""
