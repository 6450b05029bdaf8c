"""The Kubernetes shell of evaljob: watches EvalJobs, applies what `evaljob.decide` decides."""
