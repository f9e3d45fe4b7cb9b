"""The share and the ledger: inbox, journal, outbox."""
