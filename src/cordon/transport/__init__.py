"""How a site's connections leave it: through its proxy, or as files in a shared folder.

Public: ``address``, ``cli``, ``mailbox``, ``proxy``, ``socket_owner``.
"""
