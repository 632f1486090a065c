"""Networks: what learns, called `network(x, t)`."""
