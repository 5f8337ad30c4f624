"""Storage commitment (PS3.4 Annex J): transactions, their verification, and the reports to their requesters."""
