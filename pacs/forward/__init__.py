"""Objects sent on to the hospital's archives: to whom, when, and what became of each."""
