"""GPT-2 without a spreadsheet: its configuration, checkpoint, tokenizer, forward pass and sampling."""
