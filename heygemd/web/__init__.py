"""The web page: a thin front of the spool. It writes drops, reads status files and the outbox, and renders nothing."""
