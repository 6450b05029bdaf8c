"""A bare control plane for tests of the operator: etcd, API server and controllers as plain processes, no node."""
