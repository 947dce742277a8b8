//! A scraper: HTTP GET from inside a place, and samples that keep their exact value.

mod http;
mod sample;
mod traffic;

pub use http::{Response, get};
pub use sample::{Sample, Samples, parse};
pub use traffic::Traffic;
