"""Many runs: every config on every category with every seed, by one worker or several, and the search for options."""
