"""Training autoencoders of pictures: losses, discriminator, statistics and measures."""
