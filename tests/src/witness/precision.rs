//! How close to its witness a time must be, on a machine that does other things as well.

use std::error::Error;
use std::fmt;

use anyhow::{Result, bail};

/// How often a measurement is made before its imprecision is a defect.
const ATTEMPTS: u32 = 3;

/// A time is further from its witness than it may be. A defect of the product makes every measurement imprecise, a busy
/// machine only some.
#[derive(Debug)]
struct Imprecise(String);

impl fmt::Display for Imprecise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Imprecise {}

/// Fails with what the witness tells, unless the measurement is as precise as it must be.
pub fn ensure_precise(is_precise: bool, found: impl FnOnce() -> String) -> Result<()> {
    if !is_precise {
        bail!(Imprecise(found()));
    }
    Ok(())
}

/// Measures again, from the beginning, where only the [precision](ensure_precise) was not reached; any other failure is
/// final.
#[expect(clippy::print_stdout, reason = "an attempt that failed is never hidden")]
pub fn measured(mut measure: impl FnMut() -> Result<()>) -> Result<()> {
    for attempt in 1..ATTEMPTS {
        match measure() {
            Err(error) if error.is::<Imprecise>() => {
                println!("attempt {attempt} of {ATTEMPTS} was imprecise: {error:#}");
            }
            done => return done,
        }
    }
    measure()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    /// How many measurements were made when the last of these was.
    fn made(mut results: impl Iterator<Item = Result<()>>) -> (u32, bool) {
        let mut made = 0;
        let result = measured(|| {
            made += 1;
            results.next().unwrap_or(Ok(()))
        });
        (made, result.is_ok())
    }

    fn imprecise() -> Result<()> {
        ensure_precise(false, || "3 ms".into()).context("node1")
    }

    #[test]
    fn one_that_is_precise_is_made_once() {
        assert_eq!(made(std::iter::once(ensure_precise(true, String::new))), (1, true));
    }

    #[test]
    fn an_imprecise_one_is_made_again_with_its_context() {
        assert_eq!(made(std::iter::once(imprecise())), (2, true));
    }

    #[test]
    fn one_that_stays_imprecise_fails() {
        assert_eq!(made(std::iter::repeat_with(imprecise)), (3, false));
    }

    #[test]
    fn any_other_failure_is_final() {
        assert_eq!(made(std::iter::repeat_with(|| Err(anyhow!("no such device")))), (1, false));
    }
}
