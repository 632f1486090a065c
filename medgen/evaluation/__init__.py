"""What pairs are worth: figures beside real against real, copies of training data, and whether the pairs help."""
