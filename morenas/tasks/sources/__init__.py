"""Where examples come from: local files, the Hugging Face hub, the generated demo."""
