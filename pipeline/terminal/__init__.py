"""What stands between the program and a person's terminal: words, bars, exit codes, the account."""
