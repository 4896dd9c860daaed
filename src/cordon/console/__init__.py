"""What commands have in common: options, errors, progress, help.

Public: ``commands``, ``help_groups``, ``progress``.
"""
