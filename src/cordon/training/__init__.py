"""DP-SGD on a site's own rows, and training on public ones.

Public: ``dpsgd``, ``optimisers``, ``pretrain``, ``rows``, ``settings``, ``units``.
"""
