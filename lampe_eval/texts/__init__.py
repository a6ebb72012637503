"""Where text comes from: rows of data files, documents of users and of corpora, the pocket model's language."""
