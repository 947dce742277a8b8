//! The static description of a metric: the single source for the exposition, METRICS.md, dashboards and rules.

/// What kind of instrument a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total that only grows; the name ends in `_total`.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Classic buckets, a sum and a count.
    Histogram,
}

/// How many families there are on a page. Each profile has those of the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Totals of the node.
    Minimal,
    /// What is asked of every pod.
    Standard,
    /// Everything that is counted.
    Detailed,
}

impl Profile {
    /// The name as in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Detailed => "detailed",
        }
    }
}

/// A metric family: one `const` beside the collector that fills it.
#[derive(Debug)]
pub struct Descriptor {
    /// Full name, `leadline_…`.
    pub name: &'static str,
    /// Instrument.
    pub kind: Kind,
    /// Base unit as `OpenMetrics` names it (`bytes`, `seconds`, `ratio`); `None` for plain counts.
    pub unit: Option<&'static str>,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Label names, in the order in which collectors give the values.
    pub labels: &'static [&'static str],
    /// The smallest profile that has it.
    pub profile: Profile,
    /// Where the number comes from: kernel function, RFC section or upstream API.
    pub source: &'static str,
    /// The independent source it is compared with in a test, and the error found there.
    pub witness: &'static str,
}
