"""What everything stands on: errors, files, seeds, tensors, documents, the hub. Imports nothing of ours."""
