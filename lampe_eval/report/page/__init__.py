"""Pages that load nothing but themselves: the report of runs, and the leaderboard of all."""
