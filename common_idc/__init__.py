"""What several packages need: exit codes, settings, atomic files, access to the Hub, provenance."""
