"""What was spent, by whom, on whom, and by what code: chained, signed rows that outlive a run."""
