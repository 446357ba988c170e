"""A page that plays: walking in what a model imagines beside what is true, and drawing and describing."""
