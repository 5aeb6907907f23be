"""Stage 3: fine-tuning of what was found and of what it is compared with, in one harness.

``python -m morenas.finetune`` is ``__main__``; importing this package pulls in nothing heavy.
"""
