"""The report of one run: a single HTML file that needs no network.

Public: ``facts``, ``multiqc``, ``page``, ``reading``, ``sources``, ``trace``.
"""
