//! Tables without lines, that `awk` and `cut` can read, and that are never cut off at the edge of a terminal.

use comfy_table::{Attribute, Color, ContentArrangement, presets};

/// What a value says about the health of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

/// One value of a row.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
    is_right: bool,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
            is_right: false,
        }
    }

    /// Numbers stand under each other.
    pub fn number(value: impl std::fmt::Display) -> Self {
        Self {
            text: value.to_string(),
            tone: Tone::Plain,
            is_right: true,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(text, Tone::Plain)
    }
}

/// A table that is written at once.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn written(&self, colours: bool) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let heading = |text: &&str| comfy_table::Cell::new(text).add_attribute(Attribute::Bold);
        table.set_header(self.headings.iter().map(heading));
        for row in &self.rows {
            table.add_row(row.iter().map(styled));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn styled(cell: &Cell) -> comfy_table::Cell {
    // An empty value would be invisible to `awk`; what a guest or a disk is called must not move the cursor.
    let text = if cell.text.is_empty() {
        "-".to_owned()
    } else {
        printable(&cell.text)
    };
    let styled = comfy_table::Cell::new(text);
    let styled = match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::Green),
        Tone::Warning => styled.fg(Color::Yellow),
        Tone::Bad => styled.fg(Color::Red),
        Tone::Faint => styled.add_attribute(Attribute::Dim),
    };
    if cell.is_right {
        styled.set_alignment(comfy_table::CellAlignment::Right)
    } else {
        styled
    }
}

/// On one line, without control characters.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
