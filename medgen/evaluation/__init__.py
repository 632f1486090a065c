"""What pairs are worth: figures beside real against real, copies of training data, use for a segmenter."""
