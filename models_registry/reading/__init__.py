"""Read the files of models: headers, configurations, weights and their hashes, each by bounded reads."""
