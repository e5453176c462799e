//! What happened, for whoever has to find out why, and for scenarios, which compare it.

/// How much a line tells: scenarios compare facts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Decisions, and changes of state that a person would name.
    Fact,
    /// Everything that moves.
    Detail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub at_ms: u64,
    pub level: Level,
    pub text: String,
}

/// Lines in the order in which they came to be.
#[derive(Debug, Clone)]
pub struct Log {
    pub lines: Vec<Line>,
    /// What is kept; nothing costs nothing.
    keeps: Option<Level>,
}

impl Log {
    pub fn new(keeps: Option<Level>) -> Self {
        let lines = Vec::new();
        Self { lines, keeps }
    }

    pub fn add(&mut self, at_ms: u64, level: Level, text: impl FnOnce() -> String) {
        if self.keeps.is_some_and(|keeps| level <= keeps) {
            let text = text();
            self.lines.push(Line { at_ms, level, text });
        }
    }

    pub fn facts(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.level == Level::Fact)
    }
}
