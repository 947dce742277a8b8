//! A panel, and what can be said about how it looks.

use crate::expression::Expression;

/// What stands behind the (i) of a panel.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// What it shows.
    pub shows: &'static str,
    /// What it looks like while all is well.
    pub normal: &'static str,
    /// What to do when it does not.
    pub otherwise: &'static str,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The last value of each series, large.
    Stat,
    /// The last label of the legend, large, and the other ones above it.
    Names,
    /// Lines.
    Lines,
    /// Bars, for what happens rarely.
    Bars,
    /// A strip a series, coloured by value.
    Timeline,
    /// The last values as rows, by these labels.
    Table,
}

/// The unit of the values, as Grafana calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Count,
    /// So many times a second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Seconds, as days and hours.
    Duration,
    /// Bytes in a second.
    BytesPerSecond,
    /// A share of 1.
    Share,
    /// A number with a word behind it.
    Of(&'static str),
}

impl Unit {
    /// The identifier.
    #[must_use]
    pub fn id(self) -> String {
        match self {
            Self::Count => "none".to_owned(),
            Self::PerSecond => "suffix:/s".to_owned(),
            Self::Seconds => "s".to_owned(),
            Self::Duration => "dtdurations".to_owned(),
            Self::BytesPerSecond => "Bps".to_owned(),
            Self::Share => "percentunit".to_owned(),
            Self::Of(word) => format!("suffix: {word}"),
        }
    }
}

/// A colour that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Well.
    Green,
    /// Worth a look.
    Yellow,
    /// Something has failed, and it goes on.
    Orange,
    /// Broken.
    Red,
    /// Neither.
    Blue,
    /// Nothing to say.
    Grey,
}

impl Colour {
    /// As Grafana calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Red => "red",
            Self::Blue => "blue",
            Self::Grey => "#6e7380",
        }
    }
}

/// A word in place of a value.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// The value.
    pub value: i32,
    /// What is read.
    pub text: &'static str,
    /// Its colour.
    pub colour: Colour,
}

/// From a value on, a colour.
pub type Threshold = (f64, Colour);

/// An expression and what its series are called.
#[derive(Clone, Debug)]
pub struct Query {
    /// What is asked.
    pub expression: Expression,
    /// With labels in double braces; of tables the order of the columns.
    pub legend: &'static str,
}

/// A panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it is about.
    pub title: &'static str,
    /// Its explanation.
    pub text: Text,
    /// Columns of [`super::WIDTH`].
    pub width: u8,
    /// How it is drawn.
    pub kind: Kind,
    /// Of the values.
    pub unit: Unit,
    /// What is drawn.
    pub queries: Vec<Query>,
    /// Words for values.
    pub words: Vec<Word>,
    /// Colours for values, the least first; what is less is [`Panel::base`].
    pub thresholds: Vec<Threshold>,
    /// The colour without a threshold.
    pub base: Colour,
    /// What is read where there is nothing.
    pub nothing: &'static str,
    /// The board that has more: its uid, and which label it is to choose.
    pub more: Option<(&'static str, Option<&'static str>)>,
    /// Whether lines stay where they are until the next value.
    pub is_stepped: bool,
    /// Whether the axis begins at zero.
    pub is_from_zero: bool,
    /// What stands over the values of a table; without it they are left out.
    pub value_name: Option<&'static str>,
}

impl Panel {
    /// A panel that asks nothing yet.
    #[must_use]
    pub const fn new(title: &'static str, kind: Kind, unit: Unit, text: Text) -> Self {
        Self {
            title,
            text,
            width: 8,
            kind,
            unit,
            queries: Vec::new(),
            words: Vec::new(),
            thresholds: Vec::new(),
            base: Colour::Green,
            nothing: "no data",
            more: None,
            is_stepped: false,
            is_from_zero: true,
            value_name: None,
        }
    }

    /// One word for a whole layer: of findings the worst one, `good` where there is none, and `nothing` where the
    /// agents do not see the layer. Findings come with the word for them, the worst first.
    #[must_use]
    pub fn verdict(
        title: &'static str,
        text: Text,
        labels: &[&'static str],
        seen: Expression,
        findings: Vec<(&'static str, Colour, Expression)>,
    ) -> Self {
        let count = i32::try_from(findings.len()).unwrap_or(i32::MAX);
        let words = findings.iter().zip((1..=count).rev());
        let mut words: Vec<Word> =
            words.map(|((text, colour, _), value)| Word { value, text, colour: *colour }).collect();
        words.push(Word { value: 0, text: "healthy", colour: Colour::Green });
        let findings = findings.into_iter().map(|(_, _, expression)| expression).collect();
        let legend = if labels.contains(&"vip") { "{{vip}}" } else { "{{cluster}}" };
        Self {
            words,
            nothing: "not seen",
            base: Colour::Grey,
            ..Self::new(title, Kind::Stat, Unit::Count, text)
        }
        .ask(Expression::worst(labels, findings, seen), legend)
    }

    /// As it was over time, each series with that name.
    #[must_use]
    pub fn over_time(mut self, legend: &'static str) -> Self {
        self.kind = Kind::Timeline;
        for query in &mut self.queries {
            query.legend = legend;
        }
        self
    }

    /// With a further query.
    #[must_use]
    pub fn ask(mut self, expression: Expression, legend: &'static str) -> Self {
        self.queries.push(Query { expression, legend });
        self
    }

    /// So wide.
    #[must_use]
    pub const fn wide(mut self, width: u8) -> Self {
        self.width = width;
        self
    }

    /// With words in place of values.
    #[must_use]
    pub fn words(mut self, words: &[(i32, &'static str, Colour)]) -> Self {
        self.words =
            words.iter().map(|(value, text, colour)| Word { value: *value, text, colour: *colour }).collect();
        self
    }

    /// With colours from values on.
    #[must_use]
    pub fn from(mut self, thresholds: &[Threshold]) -> Self {
        self.thresholds = thresholds.to_vec();
        self
    }

    /// With that colour for what is below all thresholds.
    #[must_use]
    pub const fn base(mut self, colour: Colour) -> Self {
        self.base = colour;
        self
    }

    /// With that in place of a value that is not there.
    #[must_use]
    pub const fn nothing(mut self, word: &'static str) -> Self {
        self.nothing = word;
        self
    }

    /// With a link to the board that has more.
    #[must_use]
    pub const fn more(mut self, uid: &'static str, label: Option<&'static str>) -> Self {
        self.more = Some((uid, label));
        self
    }

    /// With lines that stay where they are until the next value.
    #[must_use]
    pub const fn steps(mut self) -> Self {
        self.is_stepped = true;
        self
    }

    /// With an axis around the values, for what counts since long ago.
    #[must_use]
    pub const fn around(mut self) -> Self {
        self.is_from_zero = false;
        self
    }

    /// With the values in a column of that name.
    #[must_use]
    pub const fn value_name(mut self, name: &'static str) -> Self {
        self.value_name = Some(name);
        self
    }
}
