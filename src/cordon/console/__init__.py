"""What commands have in common: options, errors, progress, help."""
