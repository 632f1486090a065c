"""Networks, called `network(x, t)`, or, autoencoders, by `encode` and `decode`."""
