"""Pictures for people, and the command that draws them."""
