"""What a run is given: samplesheet, parameters and files, all checked before anything is computed.

Public: ``check``, ``samplesheet``, ``sarek``.
"""
