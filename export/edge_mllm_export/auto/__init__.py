"""`--quant auto`: recipes measured on the checkpoint's own answers, and the best of them chosen."""
