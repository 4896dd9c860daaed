"""A reference, its contigs, regions of it, and files that samtools reads.

Public: ``contigs``, ``intervals``, ``reference``, ``regions``, ``samtools``.
"""
