//! HAProxy's words for the state of a server and the result of a check, as closed sets.

/// What HAProxy takes a server for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// It gets traffic. Also while checks fail, until they have failed often enough (`UP 1/3`).
    Up,
    /// It gets none. Also while checks succeed, until they have often enough (`DOWN 1/2`).
    Down,
    /// The administrator, or a name that cannot be resolved, keeps it out.
    Maintenance,
    /// It keeps what it has and gets nothing new: set to drain, or not load balanced by its own wish (`NOLB`).
    Drain,
    /// It gets traffic and nobody checks it.
    NoCheck,
    /// A word that is not known here.
    #[default]
    Unknown,
}

impl ServerState {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 6] =
        [Self::Up, Self::Down, Self::Maintenance, Self::Drain, Self::NoCheck, Self::Unknown];

    /// The value of the `state` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Maintenance => "maintenance",
            Self::Drain => "drain",
            Self::NoCheck => "no_check",
            Self::Unknown => "unknown",
        }
    }

    /// The first word decides: what follows says how many checks are still to come, or who is behind the state
    /// (`MAINT (via be/one)`, `DOWN (agent)`).
    pub(super) fn parse(status: &str) -> Self {
        if status == "no check" {
            return Self::NoCheck;
        }
        match status.split(' ').next() {
            Some("UP") => Self::Up,
            Some("DOWN") => Self::Down,
            Some("MAINT") => Self::Maintenance,
            Some("DRAIN" | "NOLB") => Self::Drain,
            _ => Self::Unknown,
        }
    }
}

macro_rules! check_results {
    ($($(#[$doc:meta])* $variant:ident $word:literal $label:literal,)+) => {
        /// The result of a health check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CheckResult {
            $($(#[$doc])* $variant,)+
            /// A word that is not known here.
            Other,
        }

        impl CheckResult {
            /// All of them, in the order of the page.
            pub const ALL: &[Self] = &[$(Self::$variant,)+ Self::Other];

            /// The value of the `result` label: HAProxy's word in small letters.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                    Self::Other => "other",
                }
            }

            fn of_word(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    _ => Self::Other,
                }
            }
        }
    };
}

check_results! {
    /// No result yet: the check was just set up.
    Ini "INI" "ini",
    /// HAProxy itself does not know.
    Unk "UNK" "unk",
    /// The socket could not be made.
    Sockerr "SOCKERR" "sockerr",
    /// The connection was made; more was not asked.
    L4Ok "L4OK" "l4ok",
    /// The connection was not made in time.
    L4Tout "L4TOUT" "l4tout",
    /// The connection was refused or could not be routed.
    L4Con "L4CON" "l4con",
    /// TLS worked; more was not asked.
    L6Ok "L6OK" "l6ok",
    /// TLS was not finished in time.
    L6Tout "L6TOUT" "l6tout",
    /// The answer was no TLS.
    L6Rsp "L6RSP" "l6rsp",
    /// The answer was the one expected.
    L7Ok "L7OK" "l7ok",
    /// The answer was one that takes the server out of load balancing (404 with `disable-on-404`).
    L7Okc "L7OKC" "l7okc",
    /// The answer did not come in time.
    L7Tout "L7TOUT" "l7tout",
    /// The answer was no answer of the protocol.
    L7Rsp "L7RSP" "l7rsp",
    /// The server answered that something is wrong, HTTP 500 for one.
    L7Sts "L7STS" "l7sts",
    /// The program that checks could not be run.
    Procerr "PROCERR" "procerr",
    /// The program that checks did not end in time.
    Proctout "PROCTOUT" "proctout",
    /// The program that checks was content.
    Procok "PROCOK" "procok",
    /// No check: enough failed requests of clients were seen.
    Hana "HANA" "hana",
}

impl CheckResult {
    /// A result is starred while the next check is on its way; no result is no check.
    pub(super) fn parse(status: &str) -> Option<Self> {
        let word = status.trim_start_matches("* ");
        (!word.is_empty()).then(|| Self::of_word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_a_server_has_its_state() {
        for (status, state) in [
            ("UP", ServerState::Up),
            ("UP 1/3", ServerState::Up),
            ("DOWN", ServerState::Down),
            ("DOWN 1/2", ServerState::Down),
            ("DOWN (agent)", ServerState::Down),
            ("MAINT", ServerState::Maintenance),
            ("MAINT (resolution)", ServerState::Maintenance),
            ("MAINT (via be/one)", ServerState::Maintenance),
            ("DRAIN", ServerState::Drain),
            ("DRAIN 1/3", ServerState::Drain),
            ("NOLB", ServerState::Drain),
            ("NOLB 2/3", ServerState::Drain),
            ("no check", ServerState::NoCheck),
            ("", ServerState::Unknown),
            ("UPSIDE", ServerState::Unknown),
            ("up", ServerState::Unknown),
        ] {
            assert_eq!(ServerState::parse(status), state, "{status}");
        }
    }

    #[test]
    fn a_result_may_be_starred_or_missing() {
        assert_eq!(CheckResult::parse("L7STS"), Some(CheckResult::L7Sts));
        assert_eq!(CheckResult::parse("* L7TOUT"), Some(CheckResult::L7Tout));
        assert_eq!(CheckResult::parse(""), None);
        assert_eq!(CheckResult::parse("L9OK"), Some(CheckResult::Other));
    }

    #[test]
    fn a_label_is_the_word_in_small_letters() {
        for result in CheckResult::ALL {
            let word = result.as_str().to_uppercase();
            let expected = if word == "OTHER" { CheckResult::Other } else { *result };
            assert_eq!(CheckResult::of_word(&word), expected);
        }
    }
}
