"""Sources of text: rows of data files, documents of users and corpora, the pocket language."""
