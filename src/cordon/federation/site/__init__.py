"""A site's part of a federation."""
