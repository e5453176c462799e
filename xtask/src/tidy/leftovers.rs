//! Rule: nothing unfinished is left behind. What is not done is an issue, not a mark in a file.

use super::Breach;
use super::source::Source;

/// What must not occur. Written in halves, or this file would break its own rule.
const WORDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const MACROS: [&str; 3] = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];
const IGNORED_TEST: &str = concat!("#[ig", "nore");

pub fn check(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let found = WORDS
            .iter()
            .chain(&MACROS)
            .find(|mark| stands_alone(line, mark))
            .or_else(|| Some(&IGNORED_TEST).filter(|mark| line.contains(**mark)));
        if let Some(mark) = found {
            breaches.push(Breach {
                rule: "leftovers",
                place: format!("{}:{}", source.path, index + 1),
                problem: format!("`{mark}` must not stay: finish it, or open an issue and remove the mark"),
            });
        }
    }
    breaches
}

/// Whether `mark` occurs and is no part of a longer word (as in a pattern for temporary file names).
fn stands_alone(line: &str, mark: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + mark.len()..].chars().next();
        let ends_open = mark.ends_with('!') || !after.is_some_and(is_word);
        !before.is_some_and(is_word) && ends_open
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(text: &str) -> usize {
        check(&Source {
            path: "sample.rs".to_owned(),
            text: text.to_owned(),
        })
        .len()
    }

    #[test]
    fn every_mark_is_caught() {
        for mark in WORDS.iter().chain(&MACROS) {
            assert_eq!(breaches(&format!("fn f() {{}}\n// {mark}: later\n")), 1, "{mark}");
        }
        assert_eq!(breaches(&format!("    {IGNORED_TEST} = \"slow\"]\n")), 1);
        assert_eq!(breaches(&format!("    {}()\n", MACROS[0])), 1);
    }

    #[test]
    fn the_place_is_file_and_line() {
        let source = Source {
            path: "a/b.md".to_owned(),
            text: format!("fine\n{} x\n", WORDS[1]),
        };
        assert_eq!(check(&source)[0].place, "a/b.md:2");
    }

    #[test]
    fn parts_of_words_are_not() {
        for fine in [
            "mktemp /tmp/x.XXXXXX",
            "let todo = 1;",
            "methodology",
            "my_todo!(x)",
            "a todo list",
        ] {
            assert_eq!(breaches(fine), 0, "{fine}");
        }
    }
}
