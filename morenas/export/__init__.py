"""Export of found adapters to formats that other libraries load, and import of LoRAs; see ``functions``.

The package imports neither torch nor transformers, so a run that cannot be exported is refused quickly.
"""
