"""Commands that take many questions: between given options, and whole files of rows."""
