"""What figures are drawn with: axes, heat maps, lines, letters and files. Needs matplotlib."""
