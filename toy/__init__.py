"""How the toy family qwen3-tiny was trained and measured. The product never imports this."""
