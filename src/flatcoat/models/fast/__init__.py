"""Networks run for their answers alone, on a CPU: no gradient, no padding, each matrix product by the quickest way there is."""
