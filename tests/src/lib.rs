//! The lab: clusters of real components in namespaces, for the tests and the demo.
