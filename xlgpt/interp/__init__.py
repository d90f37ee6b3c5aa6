"""What one does to a model to understand it: attribution, circuits, means, steering vectors, sparse autoencoders."""
