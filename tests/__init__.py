"""What the system promises, told as stories, laws and searches."""
