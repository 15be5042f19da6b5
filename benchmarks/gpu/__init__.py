"""What can only be measured on a GPU; each part says so and ends where there is none."""
