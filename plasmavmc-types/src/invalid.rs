//! The one error of this crate: everything that is wrong with a value, named by field.
//!
//! A person who made three mistakes is told three things, not one three times.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As the caller wrote it: `disks[1].size_mb`. Empty when the whole value is meant.
    pub field: String,
    /// What is wrong and what is allowed, as the rest of a sentence that begins with the field.
    pub problem: String,
}

/// A value that was refused, with every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    what: &'static str,
    problems: Vec<Problem>,
}

impl Invalid {
    /// A value that is wrong as a whole.
    pub fn whole(what: &'static str, problem: impl Into<String>) -> Self {
        let problem = Problem {
            field: String::new(),
            problem: problem.into(),
        };
        Self {
            what,
            problems: vec![problem],
        }
    }

    /// What was refused: `VM spec`, `host name`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Every reason, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether one of the reasons is about this field.
    pub fn mentions(&self, field: &str) -> bool {
        self.problems.iter().any(|problem| problem.field == field)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: ", self.what)?;
        for (index, Problem { field, problem }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let space = if field.is_empty() { "" } else { " " };
            write!(f, "{separator}{field}{space}{problem}")?;
        }
        Ok(())
    }
}

/// Collects problems, so that a constructor or a reader of messages reports all of them.
#[derive(Debug)]
pub struct Checks {
    what: &'static str,
    problems: Vec<Problem>,
}

impl Checks {
    /// Nothing is known to be wrong yet with a `what`: `VM spec`, `host name`.
    pub fn of(what: &'static str) -> Self {
        Self {
            what,
            problems: Vec::new(),
        }
    }

    /// One more thing that is wrong.
    pub fn refuse(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(Problem {
            field: field.into(),
            problem: problem.into(),
        });
    }

    /// The value, or `None` with its problems kept as problems of `field`.
    pub fn take<T>(&mut self, field: &str, value: Result<T, Invalid>) -> Option<T> {
        let invalid = match value {
            Ok(value) => return Some(value),
            Err(invalid) => invalid,
        };
        for Problem { field: inner, problem } in invalid.problems {
            let separator = if field.is_empty() || inner.is_empty() { "" } else { "." };
            self.refuse(format!("{field}{separator}{inner}"), problem);
        }
        None
    }

    /// What was found wrong so far.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Keeps a problem unless `holds`.
    pub fn require(&mut self, holds: bool, field: impl Into<String>, problem: impl FnOnce() -> String) {
        if !holds {
            self.refuse(field, problem());
        }
    }

    /// The value lies between two others, which are allowed too.
    pub fn require_range<T: PartialOrd + fmt::Display>(
        &mut self,
        field: impl Into<String>,
        value: T,
        allowed: std::ops::RangeInclusive<T>,
    ) {
        self.require(allowed.contains(&value), field, || {
            format!("is {value}, allowed is {} to {}", allowed.start(), allowed.end())
        });
    }

    /// A list is not too long.
    pub fn require_at_most(&mut self, field: impl Into<String>, count: usize, limit: usize) {
        self.require(count <= limit, field, || {
            format!("has {count} entries, at most {limit} are allowed")
        });
    }

    /// Each value at most once; names the position of the second.
    pub fn require_unique<T: Ord + fmt::Display>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        field_of: impl Fn(usize) -> String,
    ) {
        let mut seen = std::collections::BTreeMap::new();
        for (index, value) in values.into_iter().enumerate() {
            if let Some(first) = seen.get(&value) {
                let earlier = field_of(*first);
                self.require(false, field_of(index), || format!("repeats {value} of {earlier}"));
            } else {
                seen.insert(value, index);
            }
        }
    }

    /// The value, if nothing is wrong with it.
    pub fn finish<T>(self, value: T) -> Result<T, Invalid> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(Invalid {
                what: self.what,
                problems: self.problems,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_in_one_sentence() {
        let mut checks = Checks::of("thing");
        checks.require_range("size", 9, 1..=5);
        checks.require_unique(["a", "b", "a"], |index| format!("names[{index}]"));
        let invalid = checks.finish(()).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            "invalid thing: size is 9, allowed is 1 to 5; names[2] repeats a of names[0]"
        );
        assert!(invalid.mentions("size") && !invalid.mentions("names[0]"));
    }

    #[test]
    fn problems_of_a_part_are_named_after_it() {
        let mut checks = Checks::of("thing");
        assert_eq!(checks.take("size", Ok(3)), Some(3));
        assert_eq!(checks.take::<()>("name", Err(Invalid::whole("name", "is empty"))), None);
        let mut part = Checks::of("part");
        part.refuse("color", "is missing");
        assert_eq!(checks.take("lid", part.finish(())), None);
        let invalid = checks.finish(()).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            "invalid thing: name is empty; lid.color is missing"
        );
    }

    #[test]
    fn nothing_wrong_is_no_error() {
        let mut checks = Checks::of("thing");
        checks.require_range("size", 5, 1..=5);
        checks.require_at_most("list", 2, 2);
        assert_eq!(checks.finish(7), Ok(7));
    }
}
