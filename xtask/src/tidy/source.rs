//! A Rust file as the rules see it: its words and signs without comments and literals, and which of them are tests.

/// A word or a sign of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// From 1.
    pub(super) line: usize,
    /// An identifier, a number, `::`, or one other character.
    pub(super) text: &'a str,
    /// Whether it belongs to a test.
    pub(super) test: bool,
}

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// From the root of the repository.
    pub(super) path: &'a str,
    /// As it is.
    pub(super) text: &'a str,
    code: String,
    whole_test: bool,
    /// Lines of tests, from and to inclusive.
    tests: Vec<(usize, usize)>,
}

impl<'a> Source<'a> {
    /// `test_files` are those that another file declares as modules of its tests.
    pub(super) fn new(path: &'a str, text: &'a str, test_files: &[String]) -> Self {
        let code = blank(text);
        let tests = test_ranges(&tokenize(&code));
        let whole_test = path.contains("/tests/")
            || path.contains("/benches/")
            || test_files.iter().any(|file| is_below(path, file));
        Self { path, text, code, whole_test, tests }
    }

    /// The files of the modules that this one declares for tests only: `#[cfg(test)] mod fixture;`.
    pub(super) fn test_files(&self) -> Vec<String> {
        let tokens = tokenize(&self.code);
        let stem = self.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main")) => folder,
            _ => stem,
        };
        let declared = (0..tokens.len()).filter(|at| {
            let in_test = self.tests.iter().any(|(from, to)| (*from..=*to).contains(&tokens[*at].line));
            in_test && tokens[*at].text == "mod" && tokens.get(at + 2).is_some_and(|end| end.text == ";")
        });
        declared.map(|at| format!("{folder}/{}.rs", tokens[at + 1].text)).collect()
    }

    /// Everything but comments and literals.
    pub(super) fn tokens(&self) -> Vec<Token<'_>> {
        let mut tokens = tokenize(&self.code);
        for token in &mut tokens {
            token.test =
                self.whole_test || self.tests.iter().any(|(from, to)| (*from..=*to).contains(&token.line));
        }
        tokens
    }

    /// What is not a test.
    pub(super) fn production(&self) -> Vec<Token<'_>> {
        self.tokens().into_iter().filter(|token| !token.test).collect()
    }

    /// Lines that are not tests.
    pub(super) fn production_lines(&self) -> usize {
        if self.whole_test {
            return 0;
        }
        let in_tests: usize = self.tests.iter().map(|(from, to)| to - from + 1).sum();
        self.text.lines().count().saturating_sub(in_tests)
    }
}

/// Whether a path is a module's file, or in its folder.
fn is_below(path: &str, file: &str) -> bool {
    path == file || path.strip_prefix(file.trim_end_matches(".rs")).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether the words follow each other from a place on.
pub(super) fn follows(tokens: &[Token<'_>], at: usize, words: &[&str]) -> bool {
    tokens.len() >= at + words.len()
        && tokens[at..at + words.len()].iter().zip(words).all(|(token, word)| token.text == *word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn tokenize(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            let (text, after) = rest.split_at(length);
            if !first.is_whitespace() {
                tokens.push(Token { line: number + 1, text, test: false });
            }
            rest = after;
        }
    }
    tokens
}

/// The lines of every item under `#[cfg(test)]`.
fn test_ranges(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let only_test = follows(tokens, at, &["#", "[", "cfg", "(", "test"]);
        if only_test || follows(tokens, at, &["#", "[", "cfg", "(", "all", "(", "test"]) {
            let end = item_end(tokens, at);
            ranges.push((tokens[at].line, tokens[end].line));
            at = end;
        }
        at += 1;
    }
    ranges
}

/// The last token of the item that begins at a place, attributes included.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    return index;
                }
            }
            ";" if depth == 0 => return index,
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The text with comments and literals as spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that begins here ends; here, if none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => position(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        '\'' => char_end(chars, at),
        'r' if at == 0 || !is_word(chars[at - 1]) || matches!(chars[at - 1], 'b' | 'c') => {
            raw_string_end(chars, at)
        }
        _ => at,
    }
}

fn position(chars: &[char], from: usize, holds: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| holds(*c)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal; a lifetime is none.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => position(chars, at + 3, |c| c == '\'').saturating_add(1).min(chars.len()),
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let quote = position(chars, at + 1, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return at;
    }
    let hashes = quote - at - 1;
    let mut end = quote + 1;
    while end < chars.len() {
        let closes =
            chars[end] == '"' && chars[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new("x.rs", text, &[]).tokens().iter().map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = r##"a /* b /* c */ d */ e // f
            "g \" h" i r#"j " k"# l br"m" 'n' '\'' 'o: loop r#type '\u{7d}' p"##;
        // Of `br"m"` the letter before the raw string stays: it can be no word of interest.
        let expected = ["a", "e", "i", "l", "b", "'", "o", ":", "loop", "r", "#", "type", "p"];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "/* 1\n2 */ \"3\n4\" x\n";
        let source = Source::new("x.rs", text, &[]);
        assert_eq!(source.tokens(), [Token { line: 3, text: "x", test: false }]);
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        for text in ["\"a", "/* a", "r#\"a\"", "'\\"] {
            assert!(words(text).len() <= 2, "{text}");
        }
    }

    #[test]
    fn tests_are_told_from_the_rest() {
        let text = "fn a() {}\n#[cfg(test)]\nuse b;\nfn c() {}\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n fn d() { [1; 2]; }\n}\nfn e() {}\n";
        let source = Source::new("probe-user/src/x.rs", text, &[]);
        let production: Vec<&str> = source
            .production()
            .iter()
            .map(|token| token.text)
            .filter(|text| text.len() == 1 && is_word(text.chars().next().unwrap()))
            .collect();
        assert_eq!(production, ["a", "c", "e"]);
        assert_eq!(source.production_lines(), 3);
    }

    #[test]
    fn code_that_is_only_built_for_the_other_target_is_no_test() {
        let source =
            Source::new("x.rs", "#[cfg(not(test))]\nfn a() {}\n#[cfg(feature = \"test\")]\nfn b() {}\n", &[]);
        assert_eq!(source.production_lines(), 4);
    }

    #[test]
    fn a_module_of_tests_in_a_file_of_its_own_is_found() {
        let declares = "mod load;\n#[cfg(test)]\npub(crate) mod fixture;\n#[cfg(test)]\nmod tests {\n}\n";
        let of = |path| Source::new(path, declares, &[]).test_files();
        assert_eq!(of("probe-user/src/peer.rs"), ["probe-user/src/peer/fixture.rs"]);
        assert_eq!(of("probe-user/src/lib.rs"), ["probe-user/src/fixture.rs"]);
    }

    #[test]
    fn a_file_of_tests_has_no_other_lines() {
        let declared = ["probe-user/src/x/fixture.rs".to_owned()];
        let lines = |path| Source::new(path, "fn a() {}\n", &declared).production_lines();
        assert_eq!(lines("probe-user/src/x/fixture.rs"), 0);
        assert_eq!(lines("probe-user/src/x/fixture/tree.rs"), 0);
        assert_eq!(lines("tests/tests/traffic.rs"), 0);
        assert_eq!(lines("probe-user/src/x/fixtures.rs"), 1);
    }
}
