"""Whether a model still makes the right call in the right form: what adapters lose first, and validation loss does not show."""
