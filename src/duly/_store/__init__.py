"""The durable engine behind a narrow port; the only place that speaks SQL."""
