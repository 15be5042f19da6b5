"""The caretaker of the fleet: one leader that mends what was lost."""
