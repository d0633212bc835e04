"""What several packages need and none of them owns: settings, atomic files, access to the Hub, provenance."""
