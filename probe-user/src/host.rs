//! Facts about this node, and pure decisions from them.
