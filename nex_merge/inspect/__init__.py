"""What the score is made of, to look at: phases of responses, agreement with people, neurons."""
