"""The jobs that run beside the answers: each with its schedule, and one place that runs them."""
