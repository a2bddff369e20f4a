"""A mixture of LoRA experts: what they are experts of, who is asked, and how it is served."""
