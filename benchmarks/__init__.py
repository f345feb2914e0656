"""How fast the training is, beside other libraries, as a whole program, and as it grows."""
