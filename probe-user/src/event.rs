//! The one ordered timeline of what happened on this node.
