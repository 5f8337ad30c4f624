"""Health of this site, proven by traffic: facts, report and metrics."""
