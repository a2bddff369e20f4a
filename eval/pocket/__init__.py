"""The pocket world: generated little repositories, their tasks, and the model trained on them."""
