"""The search for settings: many short trainings, compared by a metric of their evaluations."""
