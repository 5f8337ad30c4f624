"""Access over HTTP: users, sessions, the hospital's identity provider, and the permissions of each role."""
