//! What the benchmark found: a JSON line for each measurement at once, a table for each part at its end.

use serde_json::Value;

use crate::terminal::{Colour, note, paint, say, table};

/// Collects measurements and prints them.
pub struct Report {
    json_only: bool,
    part: Vec<Value>,
    all: Vec<Value>,
}

/// A column of a table: its heading, and where its cell stands in the JSON.
pub type Column = (&'static str, &'static str);

impl Report {
    /// With tables, or of JSON lines only.
    pub fn new(json_only: bool) -> Report {
        Report {
            json_only,
            part: Vec::new(),
            all: Vec::new(),
        }
    }

    /// One measurement; printed at once.
    pub fn add(&mut self, measurement: Value) {
        say(&measurement);
        self.part.push(measurement.clone());
        self.all.push(measurement);
    }

    /// Ends a part: prints its measurements as a table.
    pub fn end_part(&mut self, title: &str, columns: &[Column]) {
        let part = std::mem::take(&mut self.part);
        if self.json_only || part.is_empty() || columns.is_empty() {
            return;
        }
        let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
        let rows: Vec<Vec<String>> = part
            .iter()
            .map(|value| {
                columns
                    .iter()
                    .map(|(_, pointer)| cell(value, pointer))
                    .collect()
            })
            .collect();
        say(format_args!(
            "\n{}\n{}\n",
            paint(Colour::Strong, title),
            table(&headings, &rows)
        ));
    }

    /// Everything measured so far.
    pub fn all(&self) -> &[Value] {
        &self.all
    }

    /// Says what is being done, on standard error.
    pub fn progress(&self, what: impl std::fmt::Display) {
        note(format_args!("… {what}"));
    }
}

fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::Number(number)) => number.as_f64().map_or_else(String::new, shown),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    }
}

fn shown(number: f64) -> String {
    if number >= 1000.0 || number.fract() == 0.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}
