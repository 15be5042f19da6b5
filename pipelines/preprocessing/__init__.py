"""Turn pictures into control pictures: edges, lines, depth, poses."""
