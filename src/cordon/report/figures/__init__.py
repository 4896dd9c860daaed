"""The report's figures, a module each tab or part of one; `vega` is the look that they share."""
