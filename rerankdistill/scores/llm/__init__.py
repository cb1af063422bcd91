"""Language models that answer for the kinds of teacher that ask questions."""
