"""What is wrong with the models, said before a console or a worker starts."""
