"""The two gates to the disk: what is read, and what is written; and whether git has it."""
