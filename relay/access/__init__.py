"""Who may come in: accounts, sessions, tokens, the hospital's identity provider, and what each role may do."""
