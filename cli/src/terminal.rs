//! What people see: lines on standard output, notes on standard error, colours on a terminal only.
//!
//! Must never panic because the reader went away: `raftmq consume | head` is everyday use.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Prints a line on standard output. False when nobody reads it any more.
pub fn say(line: impl Display) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Prints bytes and a line feed on standard output. False when nobody reads it any more.
pub fn say_bytes(bytes: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .is_ok()
}

/// Prints a line on standard error: progress and advice, never results.
pub fn note(line: impl Display) {
    // Nothing useful can be done when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A colour that means something; plain text where standard output is no terminal or NO_COLOR is set.
#[derive(Clone, Copy)]
pub enum Colour {
    /// It works.
    Good,
    /// It needs attention.
    Bad,
    /// A heading or a name.
    Strong,
    /// Less important.
    Faint,
}

/// Wraps `text` in the colour's codes if standard output shows colours.
pub fn paint(colour: Colour, text: impl Display) -> String {
    if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_string();
    }
    let code = match colour {
        Colour::Good => "32",
        Colour::Bad => "31",
        Colour::Strong => "1",
        Colour::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Lays out rows under headings, columns as wide as their widest cell; numbers to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| width_of(cell))
            .chain([width_of(headings[column])])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let numeric: Vec<bool> = (0..headings.len())
        .map(|column| is_numeric(rows, column))
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(widths[column].saturating_sub(width_of(cell)));
            if numeric[column] {
                format!("{space}{cell}")
            } else {
                format!("{cell}{space}")
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// Lays out names and what they stand for, one pair a line, names as wide as the widest.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| width_of(name)).max();
    let width = width.unwrap_or(0);
    let lines = pairs
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Columns on the terminal, one for each character; colour codes take none.
fn width_of(cell: &str) -> usize {
    plain(cell).chars().count()
}

/// The text without its colour codes.
fn plain(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut bare = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        bare.push_str(piece.split_once('m').map_or("", |(_, rest)| rest));
    }
    bare
}

fn is_numeric(rows: &[Vec<String>], column: usize) -> bool {
    let cells = rows.iter().filter_map(|row| row.get(column));
    cells
        .into_iter()
        .all(|cell| cell == "-" || plain(cell).parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::{pairs, table};

    /// Catches colours that shift the columns behind them.
    #[test]
    fn colour_codes_take_no_room() {
        let rows = vec![
            vec!["\x1b[32mup\x1b[0m".to_owned(), "1".to_owned()],
            vec!["down".to_owned(), "\x1b[31m20\x1b[0m".to_owned()],
        ];
        assert_eq!(
            table(&["state", "n"], &rows),
            "state   n\n\x1b[32mup\x1b[0m      1\ndown   \x1b[31m20\x1b[0m"
        );
    }

    /// Catches pairs whose values do not stand in one column.
    #[test]
    fn values_stand_in_one_column() {
        let text = pairs(&[("a", "1".to_owned()), ("long", "2".to_owned())]);
        assert_eq!(text, "a     1\nlong  2");
    }

    /// Catches columns that lose their alignment, on which reading a table rests.
    #[test]
    fn numbers_stand_to_the_right_and_names_to_the_left() {
        let rows = vec![
            vec!["orders".to_owned(), "4".to_owned()],
            vec!["a".to_owned(), "1024".to_owned()],
        ];
        assert_eq!(
            table(&["topic", "queues"], &rows),
            "topic   queues\norders       4\na         1024"
        );
    }
}
