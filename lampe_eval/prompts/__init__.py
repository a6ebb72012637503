"""How what is said to a model becomes tokens: protocols, chat templates, and cutting to a length."""
