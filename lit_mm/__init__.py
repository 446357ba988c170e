"""One transformer that reads and writes text, pictures, video and actions."""
