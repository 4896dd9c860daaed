"""What stands before the SuperLink: who may come in, and with how much.

Public: ``start``.
"""
