"""The commands, a module each: `add` declares its flags, the function below it does the work."""
