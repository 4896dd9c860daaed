"""Training across sites: what is agreed, what crosses the wire, who checks it, and Flower under it.

Public: ``averaging``, ``credentials``, ``expected``, ``messages``, ``pace``, ``plan``,
``planning``, ``remaining``.
"""
