"""From templates to formulas: a template becomes a layout of named ranges, and each range its cells' formulas."""
