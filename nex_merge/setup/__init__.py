"""What a user asks for, checked: configuration, family, search space, prompts."""
