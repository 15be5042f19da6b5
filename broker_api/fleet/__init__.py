"""What the fleet is, does and did."""
