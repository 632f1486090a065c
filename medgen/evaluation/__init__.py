"""What pairs are worth: samples of both kinds, how far they are apart, and the card that says so."""
