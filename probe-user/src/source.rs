//! Readers of the world, each with an injectable root or address.
