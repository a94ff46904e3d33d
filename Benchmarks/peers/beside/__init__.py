"""Other stores beside this one, in one run: the same blocks and prompts, the limits of the machine between them."""
