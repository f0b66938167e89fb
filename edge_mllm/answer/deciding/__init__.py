"""Questions with given options: settings, what each option scores, the decision."""
