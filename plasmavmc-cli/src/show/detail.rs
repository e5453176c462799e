//! One thing, a line for each of its properties.

use super::table::printable;
use crate::fields::Node;

/// Names on the left, values under each other on the right.
#[derive(Debug, Default)]
pub struct Detail {
    lines: Vec<(String, String)>,
}

impl Detail {
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is said about what has no value.
    pub fn line(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        let value = printable(&value.into());
        if !value.is_empty() {
            self.lines.push((name.to_owned(), value));
        }
        self
    }

    pub fn lines<T: Into<String>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) -> &mut Self {
        for (index, value) in values.into_iter().enumerate() {
            self.line(if index == 0 { name } else { "" }, value);
        }
        self
    }

    pub fn written(&self) -> String {
        let width = self
            .lines
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let line = |(name, value): &(String, String)| format!("{name:width$}  {value}");
        self.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A group of fields on one line: `name=root size_mb=1024`.
pub fn on_one_line(node: &Node) -> String {
    match node {
        Node::Map(fields) => {
            let field = |(name, value): &(String, Node)| match value {
                Node::Map(_) => on_one_line(value),
                _ => format!("{name}={}", on_one_line(value)),
            };
            fields.iter().map(field).collect::<Vec<_>>().join(" ")
        }
        Node::List(items) => items.iter().map(on_one_line).collect::<Vec<_>>().join(","),
        Node::Text(text) => text.clone(),
        other => other.kind(),
    }
}
