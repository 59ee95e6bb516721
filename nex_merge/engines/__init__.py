"""The models that answer, and `observe`, the one way from prompts to what is known of the answers."""
