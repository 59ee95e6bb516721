"""Best-of-N selection among responses to the same prompt, and the accuracy of each selector."""
