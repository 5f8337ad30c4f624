"""Whether this site works, proven by traffic: the facts, the judgement, the metrics."""
