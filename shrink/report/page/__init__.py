"""One page for a person who decides whether to ship: no scripts, nothing fetched, light or dark as the reader likes."""
