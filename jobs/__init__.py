"""What a job is: contract, states, tables, claims, events, routing."""
