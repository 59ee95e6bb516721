"""The work of a trial, wherever it is done: job -> answered. Knows neither run folders nor studies."""
