"""What everything stands on: errors, files, seeds, tensors, the hub, the registry. Imports nothing of ours."""
