"""Other stores beside this one, in one run: the same blocks, the same chains of tokens, the limits of the machine between them."""
