"""Networks: what learns, called `network(x, t)`, or with `encode` and `decode` if it is an
autoencoder.
"""
