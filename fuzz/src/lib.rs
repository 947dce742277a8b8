//! The packet parsers alone, taken from the agent's sources: they use nothing of the agent, and so nothing else of it
//! has to be built and instrumented.

#[path = "../../probe-user/src"]
mod agent {
    pub mod wire;
}

pub use agent::wire;
