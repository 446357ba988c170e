"""Writing text and drawing frames with a trained model."""
