"""What is measured and how: ratios inside one interleaved run, with counters beside them."""
