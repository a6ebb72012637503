"""Sources of text: rows of data files, documents of users and of corpora, the pocket language."""
